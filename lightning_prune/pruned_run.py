"""Train, prune and fine-tune a LightningModule in one call."""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.recipes import RECIPES
from lightning_prune.report.report_data import ReportData
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.csv_logger import AppendingCsvLogger
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.runs.stop_on_signal import StopOnSignal


@dataclass(frozen=True)
class PrunedRun:
    """What ``prune`` returns.

    Attributes:
        module: The module that was given, trained and pruned.
        report: What ``pruning_report.json`` holds; None where the recipe reports nothing.
        trainer: The Trainer, for ``trainer.test(run.module, datamodule=...)``.
        checkpoint: The last checkpoint.
    """

    module: pl.LightningModule
    report: ReportData | None
    trainer: pl.Trainer
    checkpoint: Path

    @property
    def loading(self) -> str:
        """Return the line of Python that loads the pruned module again."""
        return (
            f"lightning_prune.load_pruned({type(self.module).__name__}, {str(self.checkpoint)!r})"
        )


def prune(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule | None = None,
    recipe: str | Sequence[Callback] = "channel",
    *,
    dense_epochs: int | None = None,
    recovery_epochs: int = 12,
    folder: str | Path = "outputs/pruned",
    callbacks: Iterable[Callback] = (),
    trainer: Mapping[str, Any] | None = None,
    ckpt_path: str | Path | None = None,
    **settings: Any,
) -> PrunedRun:
    """Train a module, prune it and fine-tune what remains, as the command line does.

    The stages are those of a recipe; the Trainer writes checkpoints atomically, logs to
    ``metrics.csv``, keeps ``checkpoints/last.ckpt`` after every epoch and when a signal ends the
    run, and continues bit by bit from ``ckpt_path``.

    Args:
        module: Any LightningModule; it is changed in place.
        datamodule: Its data; None: the module has its own loaders.
        recipe: A name of ``lightning_prune.recipes``, or stages of your own.
        dense_epochs: Epochs before pruning starts; None: 12, or 0 where ``module.pretrained`` says
            that every weight came from a file.
        recovery_epochs: Epochs from the first mask to the end.
        folder: Where checkpoints, metrics, figures and the report are written.
        callbacks: Further callbacks; they follow the stages.
        trainer: Arguments of the Trainer that are to be others (``{"accelerator": "cpu"}``).
        ckpt_path: Checkpoint of an interrupted call to continue.
        settings: Arguments of the recipe, such as ``mac_target=0.5`` or ``criterion=...``.

    Raises:
        TypeError: an argument is of another kind than its place wants, or nobody knows it.
        ValueError: an unknown recipe, or an argument that is out of range.

    Example:
        >>> prune(pl.LightningModule(), recipe="chanel")
        Traceback (most recent call last):
        ValueError: recipe='chanel' is unknown. Did you mean 'channel'? ...
    """
    _check_kinds(module, datamodule)
    given = dict(trainer or {})
    dense = _dense_epochs(module, dense_epochs)
    if isinstance(recipe, str):
        stages = _stages(recipe, dense, recovery_epochs, folder, settings)
        given = {"max_epochs": dense + recovery_epochs} | given
    else:
        stages = _own_stages(recipe, settings, given)
    last = Path(folder) / "checkpoints" / "last.ckpt"
    own = given.pop("callbacks", None) or ()
    others = [*callbacks, *([own] if isinstance(own, Callback) else own)]
    made = pl.Trainer(
        **_defaults(folder) | given, callbacks=[*stages, *others, *_durable(last, others)]
    )
    made.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    reports = [stage for stage in stages if isinstance(stage, PruningReport)]
    return PrunedRun(module, reports[0].content if reports else None, made, last)


def _check_kinds(module: Any, datamodule: Any) -> None:
    if not isinstance(module, pl.LightningModule):
        raise TypeError(
            f"module is a {type(module).__name__}: pass a LightningModule; for a plain "
            "torch.nn.Module in a loop of your own there is lightning_prune.Pruning"
        )
    if datamodule is not None and not isinstance(datamodule, pl.LightningDataModule):
        raise TypeError(
            f"datamodule is a {type(datamodule).__name__}: pass a LightningDataModule, such as "
            "LightningDataModule.from_datasets(train, val), or None where the module has loaders"
        )


def _dense_epochs(module: pl.LightningModule, given: int | None) -> int:
    if given is not None:
        return given
    return 0 if getattr(module, "pretrained", False) else 12


def _stages(
    name: str, dense: int, recovery: int, folder: str | Path, settings: Mapping[str, Any]
) -> list[Callback]:
    """Return the stages of a recipe by its name.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"recipe={name!r} is unknown.{hint} Allowed: {', '.join(RECIPES)}")
    chosen: dict[str, Any] = {"dense_epochs": dense, "folder": folder, **settings}
    if "recovery_epochs" in inspect.signature(RECIPES[name]).parameters:
        chosen["recovery_epochs"] = recovery
    return RECIPES[name](**chosen)


def _own_stages(
    stages: Sequence[Callback], settings: Mapping[str, Any], trainer: Mapping[str, Any]
) -> list[Callback]:
    wrong = [type(stage).__name__ for stage in stages if not isinstance(stage, Callback)]
    if wrong:
        raise TypeError(
            f"recipe has a {wrong[0]} in it: pass the name of a recipe ({', '.join(RECIPES)}) or a "
            "list of stages, which are callbacks"
        )
    if settings:
        raise TypeError(
            f"{', '.join(settings)}: stages of your own have their settings already; pass them to "
            "the stages, or the name of a recipe"
        )
    if not any(trainer.get(key) for key in ("max_epochs", "max_steps", "max_time")):
        raise ValueError(
            "stages of your own do not say how long to train: pass trainer={'max_epochs': ...}"
        )
    return list(stages)


def _defaults(folder: str | Path) -> dict[str, Any]:
    return {
        "default_root_dir": folder,
        "logger": AppendingCsvLogger(str(folder)),
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
    }


def _durable(last: Path, given: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks that let a run be continued, but for those that were given."""
    made = [
        ModelCheckpoint(
            last.parent,
            last.stem,
            monitor=None,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        ExactResume(),
        StopOnSignal(str(last)),
    ]
    kinds = {type(one) for one in given} - {ModelCheckpoint}
    return [one for one in made if type(one) not in kinds]
