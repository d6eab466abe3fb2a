"""One run: check a configuration, build from it, train or test, and write what it came to."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.cli.build import build, build_all
from lightning_prune.cli.check import check_config
from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.given import was_given
from lightning_prune.cli.objectives import MACS, check_objectives, objective_values, returned
from lightning_prune.cli.processor_choices import choose_for_processor
from lightning_prune.cli.report_samples import write_samples
from lightning_prune.cli.run_plan import RunPlan
from lightning_prune.cli.shared_dense import keep_dense, shared_dense
from lightning_prune.cli.training_end import TrainingEnd
from lightning_prune.errors import ConfigError
from lightning_prune.files import write_bytes
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json
from lightning_prune.loading import load_pruned
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.runs.configuration.set_plain import set_plain
from lightning_prune.runs.resume.resume_command import NEVER
from lightning_prune.runs.resume.run_start import RunStart, find_start, say_changes, take_up
from lightning_prune.runs.run_lock import run_lock
from lightning_prune.runs.run_result import RESULT, write_result
from lightning_prune.runs.say import say
from lightning_prune.runs.sweep.dense_store import DenseStore
from lightning_prune.runs.wandb_id import keep_wandb_id

Value = float | tuple[float, ...] | None


def run_config(cfg: DictConfig, goes_on: bool = False) -> Value:
    """Carry out one configuration: check, seed, build, train or test.

    Args:
        cfg: The composed configuration, see conf/train.yaml. Values that depend on data or model
            (number of classes, epochs) are filled in.
        goes_on: Whether it is an interrupted run of the same folder, as with `resume=FOLDER`: it
            is continued from its newest intact checkpoint.

    Returns:
        The last value of the monitored metric, which a multirun compares; with `objectives` their
        values, in that order. None where the run did not log it.

    Raises:
        ConfigError: before training, if a key, type or range is wrong, or another process works in
            the folder.
    """
    _find_checkpoint(cfg)
    check_config(cfg)
    _check_folder(cfg.output_dir)
    with run_lock(cfg.output_dir), shared_dense(cfg) as shared:
        return _run(cfg, goes_on, shared)


def _run(cfg: DictConfig, goes_on: bool, shared: DenseStore | None) -> Value:
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build(cfg.data, "data")
    fill_from_data(cfg, data)
    if cfg.task == "test":
        return _test(cfg, data)
    start = find_start(Path(cfg.output_dir)) if goes_on or _names_folder(cfg) else None
    _forget_result(cfg.output_dir)
    if start is None and shared is not None:
        start = shared.take()
    if start is not None:
        take_up(cfg, start, keep_epochs=not was_given("dense_epochs"))
    model = build(cfg.model, "model")
    plan_epochs(cfg, pretrained=getattr(model, "pretrained", False))
    choose_for_processor(cfg, model, None if start is None else start.config)
    keep_wandb_id(cfg)
    callbacks = build_all(cfg.get("pruning"), "pruning") | build_all(cfg.callbacks, "callbacks")
    loggers = list(build_all(cfg.logger, "logger").values())
    end = TrainingEnd()
    used = [*_usable(callbacks, loggers), end, RunPlan(cfg.output_dir, cfg.get("target"))]
    used = [*keep_dense(shared, cfg.dense_epochs, used), *used]
    trainer = build(cfg.trainer, "trainer", callbacks=used, logger=loggers, **_bars(cfg, used))
    if start is not None and (shared is None or not shared.taken):
        say_changes(cfg, start)
    save_config(cfg)

    check_objectives(cfg, model, data)
    dense = _dense_metrics(cfg, model, data, start)
    with warnings.catch_warnings():
        if start is not None:  # it continues in its folder
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
        _fit(trainer, model, data, cfg.ckpt_path)
    if trainer.global_step == 0:  # a dry run: nothing was trained, so there is nothing to test
        return None
    end.complete(trainer, model)
    value = end.metrics.get(cfg.monitor)
    pruned = dict(trainer.test(model, datamodule=data, verbose=False)[0])
    macs = _finish(cfg, callbacks, data, model, dense, pruned)
    write_result(cfg.output_dir, cfg.monitor, value, pruned, macs)
    if not cfg.get("objectives"):
        return value
    values = objective_values(cfg.objectives, end.metrics, pruned, macs)
    write_result(cfg.output_dir, cfg.monitor, value, pruned, macs, values)
    return returned(values)


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
        cfg: The configuration; `dense_epochs` and `trainer.max_epochs` are filled in.
        pretrained: Whether every layer, the class head too, came from a file.

    Raises:
        ConfigError: if nothing would be trained, or training would end before pruning starts.
    """
    # With recovery_epochs=0 a recipe only regularizes: nothing starts, nothing ends too early.
    prunes = bool(cfg.get("pruning")) and cfg.recovery_epochs > 0
    if prunes and pretrained and not was_given("dense_epochs"):
        cfg.dense_epochs = 0
        say("the model comes trained: pruning starts at once (dense_epochs=0)")
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


def _find_checkpoint(cfg: DictConfig) -> None:
    """Replace a run's folder by its checkpoint where one is tested."""
    try:
        path, task = cfg.get("ckpt_path"), cfg.get("task")
    except OmegaConfBaseException:  # check_config says which reference leads nowhere
        return
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        return
    if task == "test":
        cfg.ckpt_path = str(checkpoint_argument(Path(path)))
    else:
        raise ConfigError(
            f"ckpt_path={path} is a folder: give resume={path} to continue that run, or one of "
            "its checkpoints"
        )


def _check_folder(output_dir: str) -> None:
    """Find out now whether the run can write where it will have to."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        allowed = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"output_dir={output_dir!r} cannot be made ({reason}): choose another folder"
        ) from error
    if not allowed:
        raise ConfigError(f"output_dir={output_dir} cannot be written to: choose another folder")


def _bars(cfg: DictConfig, callbacks: Sequence[Any]) -> dict[str, bool]:
    """Keep Lightning from adding a bar of its own where callbacks.progress=null wants none."""
    if "enable_progress_bar" in cfg.trainer or any(map(_is_bar, callbacks)):
        return {}
    return {"enable_progress_bar": False}


def _is_bar(callback: Any) -> bool:
    return isinstance(callback, ProgressBar)


def _fit(trainer: L.Trainer, model: L.LightningModule, data: Any, ckpt_path: str | None) -> None:
    """Train; a refusal before the first batch is a matter of the configuration."""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (ValueError, MisconfigurationException) as error:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready:
            raise
        raise ConfigError(str(error)) from error


def _test(cfg: DictConfig, data: Any) -> Value:
    if cfg.ckpt_path is None:
        raise ConfigError("task=test needs a checkpoint: pass ckpt_path=PATH")
    if MACS in (cfg.get("objectives") or []):
        raise ConfigError(f"objectives: {MACS} is known to a run that trains; leave it out here")
    model = _load(hydra.utils.get_class(cfg.model._target_), Path(cfg.ckpt_path))
    choose_for_processor(cfg, model, None)
    save_config(cfg)
    loggers = list(build_all(cfg.logger, "logger").values())
    progress = [c for c in build_all(cfg.callbacks, "callbacks").values() if _is_bar(c)]
    options = {"enable_checkpointing": False, **_bars(cfg, progress)}
    trainer = build(cfg.trainer, "trainer", callbacks=progress, logger=loggers, **options)
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    _say_metrics(cfg.ckpt_path, metrics)
    write_result(cfg.output_dir, cfg.monitor, None, metrics)
    if cfg.get("objectives"):
        names = [name.replace("val/", "test/", 1) for name in cfg.objectives]
        return returned(objective_values(names, {}, metrics, None))
    value = metrics.get(cfg.monitor.replace("val/", "test/"))
    return None if value is None else float(value)


def _load(kind: type[L.LightningModule], path: Path) -> L.LightningModule:
    if not path.is_file():
        raise ConfigError(f"ckpt_path={path} is no file: give a checkpoint of a run")
    try:
        return load_pruned(kind, path)
    except CheckpointError as error:
        raise ConfigError(f"ckpt_path={path}: {error}") from error


def _evaluate(
    cfg: DictConfig, model: L.LightningModule, data: Any, what: str | None
) -> dict[str, float]:
    """Test a model with a Trainer of its own: no callback may see it, no logger records it."""
    quiet = {"logger": False, "callbacks": [], "enable_checkpointing": False}
    trainer = build(cfg.trainer, "trainer", **quiet, enable_progress_bar=False)
    metrics: Mapping[str, float] = trainer.test(model, datamodule=data, verbose=False)[0]
    if what is not None:
        _say_metrics(what, metrics)
    return dict(metrics)


def _finish(
    cfg: DictConfig,
    callbacks: Mapping[str, Callback],
    data: Any,
    model: L.LightningModule,
    dense: dict[str, float] | None,
    pruned: dict[str, float],
) -> float | None:
    """Complete and show the report of what was pruned; return what remains of the MACs."""
    reports = [callback for callback in callbacks.values() if isinstance(callback, PruningReport)]
    shown = any(not report.content.is_empty for report in reports)
    if not shown:
        _say_metrics("the trained model", pruned)
    checkpoint, before = Path(cfg.output_dir, "checkpoints", "dense.ckpt"), None
    if reports and checkpoint.is_file():
        before = _load(type(model), checkpoint)
        dense = _evaluate(cfg, before, data, None if shown else "the dense model")
    if any(report.page and not report.content.is_empty for report in reports):
        write_samples(cfg.output_dir, data, before, model)
    for report in reports:
        report.add_metrics(report.content.trained, pruned)
        if dense is not None:
            report.add_metrics("dense", dense)
        report.write(cfg.output_dir)
        if not report.content.is_empty:
            report.print()
    if not shown:  # else the ten lines have said it
        say(f"everything of this run is in {cfg.output_dir}")
    return reports[0].content.macs_fraction if reports else None


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


def _usable(callbacks: Mapping[str, Callback], loggers: Sequence[Any]) -> list[Callback]:
    # A LearningRateMonitor without a logger is an error in Lightning; logger=none is no mistake.
    return [c for c in callbacks.values() if loggers or not isinstance(c, LearningRateMonitor)]


def _say_metrics(what: str, metrics: Mapping[str, float]) -> None:
    values = "  ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
    say(f"{what}: {values}")
