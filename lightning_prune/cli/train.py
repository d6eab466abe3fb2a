"""Train, prune and test a model from a Hydra configuration."""

import math
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks.non_finite_weights import NonFiniteWeightsError
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.cli.build import build, build_all
from lightning_prune.cli.check import check_config
from lightning_prune.cli.composition import check_overrides, composition_message, with_plus
from lightning_prune.cli.config_folder import config_folder
from lightning_prune.cli.errors import ConfigError
from lightning_prune.cli.folder_seal import seal
from lightning_prune.cli.read_json import read_json
from lightning_prune.cli.resume import (
    NEVER,
    finished_result,
    resume_arguments,
    resume_command,
    resumed_folder,
)
from lightning_prune.cli.run_command import RunCommand
from lightning_prune.cli.run_lock import run_lock
from lightning_prune.cli.run_result import RESULT, write_result
from lightning_prune.cli.run_start import RunStart, find_start, say_changes, take_up
from lightning_prune.cli.set_plain import set_plain
from lightning_prune.cli.sweep_callback import JOB, SweepCallback
from lightning_prune.cli.training_end import TrainingEnd
from lightning_prune.cli.wandb_id import keep_wandb_id
from lightning_prune.data.checks import DataError
from lightning_prune.files import write_bytes
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.loading import load_pruned
from lightning_prune.report.files import write_json


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where the configuration is wrong.

    A training that diverged exits with 1 and one message, a run that a signal asked to end with
    128 + the signal's number.

    Args:
        argv: the arguments behind the program's name; None takes those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print a shortened traceback and exit by itself; with this it hands errors on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    command = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
    try:
        done = finished_result(arguments)
        if done is not None:
            _say_finished(done)
            return
        arguments = resume_arguments(with_plus(arguments))
        sys.argv = [sys.argv[0], *arguments]
        folder = resumed_folder(arguments)
        # Before Hydra writes into it.
        with nullcontext() if folder is None else run_lock(folder):
            command(_task)()
    except SystemExit as end:
        # Lightning ends with 1 after a second Ctrl-C.
        if isinstance(end.__context__, KeyboardInterrupt):
            sys.exit(128 + signal.SIGINT)
        raise
    except (ConfigError, DataError, HydraException) as error:
        if full:
            raise
        if isinstance(error, HydraException):
            print(composition_message(error, arguments), file=sys.stderr)
        else:
            print(error, file=sys.stderr)
        print("(HYDRA_FULL_ERROR=1 shows where this was found)", file=sys.stderr)
        sys.exit(2)
    except NonFiniteWeightsError as error:
        if full:
            raise
        print(error, file=sys.stderr)
        sys.exit(1)
    finally:
        SweepCallback.close()


def run(cfg: DictConfig, goes_on: bool = False) -> float | None:
    """Carry out one configuration: check, seed, build, train or test.

    Args:
        cfg: the composed configuration, see conf/train.yaml. Values that depend on data or model
            (number of classes, epochs) are filled in.
        goes_on: whether it is an interrupted run of the same folder, as with `resume=FOLDER`: it
            is continued from its newest intact checkpoint.

    Returns:
        The last value of the monitored metric, which a multirun compares; None where the run did
        not log it.

    Raises:
        ConfigError: before training, if a key, type or range is wrong, or another process works in
            the folder.
    """
    check_config(cfg)
    with run_lock(cfg.output_dir):
        return _run(cfg, goes_on)


def _run(cfg: DictConfig, goes_on: bool) -> float | None:
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build(cfg.data, "data")
    fill_from_data(cfg, data)
    if cfg.task == "test":
        return _test(cfg, data)
    start = find_start(Path(cfg.output_dir)) if goes_on or _names_folder(cfg) else None
    _forget_result(cfg.output_dir)
    if start is not None:
        take_up(cfg, start, keep_epochs=not _was_given("dense_epochs"))
    model = build(cfg.model, "model")
    plan_epochs(cfg, pretrained=getattr(model, "pretrained", False))
    keep_wandb_id(cfg)
    callbacks = build_all(cfg.get("pruning"), "pruning") | build_all(cfg.callbacks, "callbacks")
    loggers = list(build_all(cfg.logger, "logger").values())
    end = TrainingEnd()
    used = [*_usable(callbacks, loggers), end]
    trainer = build(cfg.trainer, "trainer", callbacks=used, logger=loggers)
    if start is not None:
        say_changes(cfg, start)
    save_config(cfg)

    dense = _dense_metrics(cfg, model, data, start)
    _fit(trainer, model, data, cfg.ckpt_path)
    if trainer.global_step == 0:  # a dry run: nothing was trained, so there is nothing to test
        return None
    end.complete(trainer, model)
    value = end.metrics.get(cfg.monitor)
    pruned = dict(trainer.test(model, datamodule=data, verbose=False)[0])
    content = _finish(cfg, callbacks, data, model, dense, pruned)
    write_result(cfg.output_dir, cfg.monitor, value, pruned, content)
    return value


def fill_from_data(cfg: DictConfig, data: Any) -> None:
    """Fill each key of the model that is null from the data module's attribute of that name."""
    for key, value in cfg.model.items():
        if value is None and key not in ("weights", "size"):
            try:
                known = getattr(data, str(key), None)
            except (ValueError, OSError) as error:
                raise ConfigError(f"data: {error}") from error
            if known is not None:
                set_plain(cfg.model, str(key), known)


def plan_epochs(cfg: DictConfig, pretrained: bool) -> None:
    """Compute how long to train, and start at pruning where the model comes trained.

    Args:
        cfg: the configuration; `dense_epochs` and `trainer.max_epochs` are filled in.
        pretrained: whether every layer, the class head too, came from a file.

    Raises:
        ConfigError: if nothing would be trained, or training would end before pruning starts.
    """
    # With recovery_epochs=0 a recipe only regularizes: nothing starts, nothing ends too early.
    prunes = bool(cfg.get("pruning")) and cfg.recovery_epochs > 0
    if prunes and pretrained and not _was_given("dense_epochs"):
        cfg.dense_epochs = 0
        _say("the model comes trained: pruning starts at once (dense_epochs=0)")
    given = cfg.trainer.get("max_epochs")
    if given is None:
        cfg.trainer.max_epochs = cfg.dense_epochs + (cfg.recovery_epochs if prunes else 0)
        if cfg.trainer.max_epochs == 0:
            raise ConfigError("dense_epochs=0 trains nothing: give at least 1 epoch")
    elif prunes and 0 <= given <= cfg.dense_epochs:
        raise ConfigError(
            f"trainer.max_epochs={given} ends before pruning starts (dense_epochs="
            f"{cfg.dense_epochs}): leave it null, or give more than {cfg.dense_epochs}"
        )


@rank_zero_only
def save_config(cfg: DictConfig) -> None:
    """Write the resolved configuration to `config.yaml` in the output folder."""
    text = OmegaConf.to_yaml(cfg, resolve=True)
    write_bytes(Path(cfg.output_dir, "config.yaml"), text.encode())
    seal(Path(cfg.output_dir, "config.yaml"))


def _task(cfg: DictConfig) -> float | None:
    # Lightning 2.6 asks torch's tree in an old way; a user can do nothing about it. Here and not
    # in main: the jobs of a sweep may run in processes of their own.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*deprecated")
    groups = GlobalHydra.instance().config_loader().list_groups("")
    check_overrides(_overrides(), groups)
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        with run_lock(folder):
            RunCommand.current().keep(folder)
            return _run_job(cfg) if HydraConfig.get().mode == RunMode.MULTIRUN else run(cfg)
    except SIGTERMException as end:
        # Within a test Lightning gives no code, and a process that was stopped would end with 0.
        end.code = end.code or 128 + signal.SIGTERM
        end.args = (end.code,)
        _say_how_to_go_on()
        raise


def _run_job(cfg: DictConfig) -> float | None:
    """Run a job of a sweep as far as its folder says that it has to be run."""
    job = read_json(Path(HydraConfig.get().runtime.output_dir, JOB)) or {}
    if job.get("status") == "ok":
        _say(f"job {job['job']} is finished: it is not run again")
        value: float | None = job["result"]["value"]
        return value
    return run(cfg, goes_on=bool(job.get("goes_on")))


def _fit(trainer: L.Trainer, model: L.LightningModule, data: Any, ckpt_path: str | None) -> None:
    """Train; a refusal before the first batch is a matter of the configuration."""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (ValueError, MisconfigurationException) as error:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready:
            raise
        raise ConfigError(str(error)) from error


def _test(cfg: DictConfig, data: Any) -> float | None:
    if cfg.ckpt_path is None:
        raise ConfigError("task=test needs a checkpoint: pass ckpt_path=PATH")
    model = _load(hydra.utils.get_class(cfg.model._target_), Path(cfg.ckpt_path))
    save_config(cfg)
    loggers = list(build_all(cfg.logger, "logger").values())
    trainer = build(cfg.trainer, "trainer", logger=loggers, enable_checkpointing=False)
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    _say_metrics(cfg.ckpt_path, metrics)
    write_result(cfg.output_dir, cfg.monitor, None, metrics)
    value = metrics.get(cfg.monitor.replace("val/", "test/"))
    return None if value is None else float(value)


def _load(kind: type[L.LightningModule], path: Path) -> L.LightningModule:
    if not path.is_file():
        raise ConfigError(f"ckpt_path={path} is no file: give a checkpoint of a run")
    try:
        return load_pruned(kind, path)
    except CheckpointError as error:
        raise ConfigError(f"ckpt_path={path}: {error}") from error


def _evaluate(cfg: DictConfig, model: L.LightningModule, data: Any, what: str) -> dict[str, float]:
    """Test a model with a Trainer of its own: no callback may see it, no logger records it."""
    quiet = {"logger": False, "callbacks": [], "enable_checkpointing": False}
    trainer = build(cfg.trainer, "trainer", **quiet, enable_progress_bar=False)
    metrics: Mapping[str, float] = trainer.test(model, datamodule=data, verbose=False)[0]
    _say_metrics(what, metrics)
    return dict(metrics)


def _finish(
    cfg: DictConfig,
    callbacks: Mapping[str, Callback],
    data: Any,
    model: L.LightningModule,
    dense: dict[str, float] | None,
    pruned: dict[str, float],
) -> dict[str, Any] | None:
    """Complete, show and return the report of what was pruned, if there is one."""
    reports = [callback for callback in callbacks.values() if isinstance(callback, PruningReport)]
    _say_metrics("the trained model", pruned)
    checkpoint = Path(cfg.output_dir, "checkpoints", "dense.ckpt")
    if reports and checkpoint.is_file():
        dense = _evaluate(cfg, _load(type(model), checkpoint), data, "the dense model")
    for report in reports:
        report.add_metrics(report.trained, pruned)
        if dense is not None:
            report.add_metrics("dense", dense)
        report.write(cfg.output_dir)
        report.print()
    _say(f"everything of this run lies in {cfg.output_dir}")
    return reports[0].content if reports else None


def _dense_metrics(
    cfg: DictConfig, model: L.LightningModule, data: Any, start: RunStart | None
) -> dict[str, float] | None:
    """Test the weights that a run starts from, once in its life."""
    kept = Path(cfg.output_dir, "weights_metrics.json")
    if start is not None:
        return read_json(kept)
    if cfg.model.get("weights") is None or cfg.ckpt_path is not None:
        return None
    metrics = _evaluate(cfg, model, data, "the weights as they came")
    _write_metrics(kept, metrics)
    return metrics


@rank_zero_only
def _write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    if all(math.isfinite(value) for value in metrics.values()):
        write_json(path, metrics)


@rank_zero_only
def _forget_result(folder: str) -> None:
    # Else a run that is killed would be taken for finished.
    Path(folder, RESULT).unlink(missing_ok=True)


def _names_folder(cfg: DictConfig) -> bool:
    return cfg.get("resume") not in (None, NEVER)


def _say_how_to_go_on() -> None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _say("the same command goes on with this sweep")
    else:
        _say(f"go on with: {resume_command(Path(HydraConfig.get().runtime.output_dir))}")


@rank_zero_only
def _say_finished(result: Mapping[str, Any]) -> None:
    value = "" if result["value"] is None else f"{result['monitor']} {result['value']:.4f}  "
    metrics = "  ".join(f"{key} {number:.4f}" for key, number in sorted(result["metrics"].items()))
    print(f"this run is finished: {value}{metrics}")
    print("to train it on, give overrides beside resume, such as trainer.max_epochs=48", flush=True)


def _usable(callbacks: Mapping[str, Callback], loggers: Sequence[Any]) -> list[Callback]:
    # A LearningRateMonitor without a logger is an error in Lightning; logger=none is no mistake.
    return [c for c in callbacks.values() if loggers or not isinstance(c, LearningRateMonitor)]


def _was_given(key: str) -> bool:
    return any(word.lstrip("+").partition("=")[0] == key for word in _overrides())


def _overrides() -> list[str]:
    if not HydraConfig.initialized():
        return []
    # Unresolved: a word like output_dir=${...} is text here, not a reference.
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(word) for word in words or []]


def _say_metrics(what: str, metrics: Mapping[str, float]) -> None:
    values = "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
    _say(f"{what}: {values}")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
