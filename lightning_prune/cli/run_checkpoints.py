"""The checkpoints of a run, one per epoch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.surgery.architecture import RECORD, with_record


@dataclass(frozen=True)
class RunCheckpoint:
    """What one checkpoint says about itself.

    Attributes:
        path: The file.
        epoch: Its epoch, 0-based.
        step: Optimizer steps until then.
        shapes: Name of a tensor -> its shape.
        also: Names of other files of the same epoch.
    """

    path: Path
    epoch: int
    step: int
    shapes: Mapping[str, tuple[int, ...]]
    also: tuple[str, ...] = ()

    def weights(self) -> dict[str, Tensor]:
        """Read the state dict.

        Raises:
            ValueError: the file cannot be read, or holds NaN or infinity.
        """
        state = _tensors(_read(self.path, "cpu"))
        for name, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinity: the training diverged")
        return state


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the `*.ckpt` of a run: those in `checkpoints/`, else those in the folder itself."""
    inner = sorted((folder / "checkpoints").glob("*.ckpt"))
    return inner or sorted(folder.glob("*.ckpt"))


def run_checkpoints(files: Iterable[Path]) -> tuple[list[RunCheckpoint], dict[str, str]]:
    """Return one checkpoint per epoch of the regularization, in order.

    Of several files of one epoch the one with the most steps counts, and before `last` and `best`,
    which later epochs replace, one that keeps its epoch. Files with masked channels, and files of
    other shapes than the earliest (channels were cut), belong to later phases and are left out.

    Args:
        files: Lightning checkpoints.

    Returns:
        The checkpoints, and of each file that was left out its name and the reason.
    """
    found, skipped = [], {}
    for path in files:
        try:
            content = _read(path, "meta")
        except ValueError as error:
            skipped[path.name] = str(error)
            continue
        if _is_masked(content):
            skipped[path.name] = "some of its channels are masked: the pruning phase had begun"
            continue
        state = with_record(_tensors(content))
        shapes = {name: tuple(v.shape) for name, v in state.items() if name != RECORD}
        found.append(RunCheckpoint(path, content["epoch"], content["global_step"], shapes))
    first = min(found, key=lambda one: (one.epoch, one.step), default=None)
    for one in found:
        if first is not None and one.shapes != first.shapes:
            skipped[one.path.name] = (
                f"its tensors have other shapes than those of {first.path.name}"
            )
    return _one_per_epoch([one for one in found if one.path.name not in skipped]), skipped


def _one_per_epoch(found: list[RunCheckpoint]) -> list[RunCheckpoint]:
    def rank(one: RunCheckpoint) -> tuple[int, int, bool, str]:
        return one.epoch, -one.step, one.path.stem.startswith(("last", "best")), one.path.name

    chosen: list[RunCheckpoint] = []
    for one in sorted(found, key=rank):
        # The same steps under a later epoch: saved after the end, when Lightning has counted on.
        if chosen and (one.epoch == chosen[-1].epoch or one.step == chosen[-1].step):
            chosen[-1] = replace(chosen[-1], also=(*chosen[-1].also, one.path.name))
        else:
            chosen.append(one)
    return chosen


def _is_masked(content: Mapping[str, Any]) -> bool:
    states = content.get("callbacks", {})
    return any(
        isinstance(state, dict) and state.get("originals") and not state.get("cut")
        for state in (states.values() if isinstance(states, dict) else ())
    )


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {k: v for k, v in content["state_dict"].items() if isinstance(v, Tensor)}


def _read(path: Path, device: str) -> dict[str, Any]:
    try:
        content = read_checkpoint(path, device)
    except CheckpointError as error:
        raise ValueError(error.reason) from error
    except FileNotFoundError as error:
        raise ValueError("no regular file") from error
    keys = {"state_dict": dict, "epoch": int, "global_step": int}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), kind) for key, kind in keys.items()
    ):
        raise ValueError("no Lightning checkpoint: it lacks state_dict, epoch or global_step")
    return content
