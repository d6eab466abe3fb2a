"""Train, prune and test a model from a Hydra configuration."""

import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lightning_prune.cli.command_line import understood
from lightning_prune.cli.composition import check_overrides
from lightning_prune.cli.given import given_overrides
from lightning_prune.cli.plain_ending import plain_ending
from lightning_prune.cli.refusal import refusal
from lightning_prune.cli.versions import versions
from lightning_prune.files.read_json import read_json
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.say import say

Value = float | tuple[float, ...] | None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where the configuration is wrong.

    A training that diverged exits with 1 and one message, a run that a signal asked to end with
    128 + the signal's number.

    Args:
        argv: The arguments behind the program's name; None takes those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    _look_in_current_folder()
    with plain_ending():
        if "--version" in arguments:
            print(versions())
        else:
            _compose_and_run(arguments)


def _look_in_current_folder() -> None:
    """Add the user's folder to where classes are imported from, as `python -m` does."""
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def run(cfg: DictConfig, goes_on: bool = False) -> Value:
    """Carry out one configuration; see ``training.run_config``, which takes seconds to import."""
    from lightning_prune.cli.training import run_config

    return run_config(cfg, goes_on)


def _compose_and_run(arguments: list[str]) -> None:
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print a shortened traceback and exit by itself; with this it hands errors on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    command = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
    try:
        if any(word.startswith("resume=") for word in arguments):
            from lightning_prune.runs.resume.resume_command import finished_result, resume_arguments

            done = finished_result(arguments)
            if done is not None:
                _say_finished(done)
                return
            arguments = resume_arguments(arguments)
        arguments = understood(arguments)
        sys.argv = [sys.argv[0], *arguments]
        with _resumed_lock(arguments):
            command(_task)()
    except SystemExit as end:
        # Lightning ends with 1 after a second Ctrl-C.
        if isinstance(end.__context__, KeyboardInterrupt):
            sys.exit(128 + signal.SIGINT)
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        sentence = None if full else refusal(error, arguments, _task.__code__)
        if sentence is None:
            raise
        print(sentence.text, file=sys.stderr)
        sys.exit(sentence.code)
    finally:
        _close_sweep()


def _resumed_lock(arguments: Sequence[str]) -> AbstractContextManager[Any]:
    """Hold the folder that is resumed, before Hydra writes into it."""
    if not any(word.startswith("resume=") for word in arguments):
        return nullcontext()
    from lightning_prune.runs.resume.resume_command import resumed_folder
    from lightning_prune.runs.run_lock import run_lock

    folder = resumed_folder(arguments)
    return nullcontext() if folder is None else run_lock(folder)


def _task(cfg: DictConfig) -> Value:
    # Here and not above: what trains takes seconds to import, and --help needs none of it.
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lightning_prune.cli.terminal import log_file, open_terminal
    from lightning_prune.runs.resume.run_command import RunCommand
    from lightning_prune.runs.run_lock import run_lock

    # Lightning 2.6 asks torch's tree in an old way; a user can do nothing about it. Here and not
    # in main: the jobs of a sweep may run in processes of their own.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*deprecated")
    with open_terminal(log_file()) as terminal:
        try:
            groups = GlobalHydra.instance().config_loader().list_groups("")
            check_overrides(given_overrides(), groups)
            folder = Path(HydraConfig.get().runtime.output_dir)
            with run_lock(folder):
                RunCommand.current().keep(folder)
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    return _run_job(cfg)
                return run(cfg)
        except SIGTERMException as end:
            # Within a test Lightning gives no code, and a process that was stopped would end with
            # 0.
            end.code = end.code or 128 + signal.SIGTERM
            end.args = (end.code,)
            _say_how_to_go_on()
            raise
        except Exception as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:  # there it is logged as the job's end
                terminal.note_error(error)
            raise


def _run_job(cfg: DictConfig) -> Value:
    """Run a job of a sweep as far as its folder says that it has to be run."""
    from lightning_prune.runs.sweep.sweep_callback import JOB

    job = read_json(Path(HydraConfig.get().runtime.output_dir, JOB)) or {}
    if job.get("status") == "ok":
        say(f"job {job['job']} is finished: it is not run again")
        return _value_of(job["result"])
    return run(cfg, goes_on=bool(job.get("goes_on")))


def _value_of(result: Mapping[str, Any]) -> Value:
    """Return what a job returned when it was run."""
    values = result.get("objectives")
    if not values:
        value: float | None = result["value"]
        return value
    found = tuple(float(value) for value in values.values())
    return found if len(found) > 1 else found[0]


def _close_sweep() -> None:
    module = sys.modules.get("lightning_prune.runs.sweep.sweep_callback")
    if module is not None:
        module.SweepCallback.close()


def _say_how_to_go_on() -> None:
    from lightning_prune.runs.resume.resume_command import resume_command

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        say("the same command continues with this sweep")
    else:
        say(f"continue with: {resume_command(Path(HydraConfig.get().runtime.output_dir))}")


def _say_finished(result: Mapping[str, Any]) -> None:
    value = "" if result["value"] is None else f"{result['monitor']} {result['value']:.4f}  "
    metrics = "  ".join(f"{key} {number:.4f}" for key, number in sorted(result["metrics"].items()))
    say(f"this run is finished: {value}{metrics}")
    say("to train it on, give overrides beside resume, such as trainer.max_epochs=48")
