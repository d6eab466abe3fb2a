"""What ``ModelCheckpoint`` knows of its files, where their folder was moved or files are gone."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.runs.trainer.fit_state import checkpoint_callbacks
from lightning_prune.runs.trainer.ranks import broadcast

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def follow_files(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Update every ``ModelCheckpoint`` of a resumed run to the files that are there.

    Lightning forgets the best score where the folder has another name than before, and the next
    epoch, however bad, takes the place of the best file. A file of the list that is gone would
    keep its score, and no later one would be good enough to be written.

    Args:
        trainer: The Trainer that resumes.
        checkpoint: What it resumes from; the states of these callbacks are changed.
    """
    states: dict[str, Any] = checkpoint.get("callbacks", {})
    for callback in checkpoint_callbacks(trainer):
        state = states.get(callback.state_key)
        if state is not None:
            states[callback.state_key] = followed(trainer, callback, state)


def followed(
    trainer: pl.Trainer, callback: ModelCheckpoint, state: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the state of one callback with the files that are there, by their paths now."""
    state = dict(state)
    old, new = state.get("dirpath"), callback.dirpath
    if not isinstance(old, str) or new is None or "://" in f"{old}{new}":
        return state
    move = _mover(Path(old), Path(new), Path(str(trainer.ckpt_path)))
    if move is None:
        return state
    scores = {move(path): score for path, score in state.get("best_k_models", {}).items()}
    paths = {key: move(state.get(key) or "") for key in _PATHS}
    named = sorted({path for path in (*scores, *paths.values()) if path})
    there = set(broadcast(trainer, [path for path in named if _is_file(path)]))
    if old != str(new) and named and not there:
        return state  # a new run that begins with the weights of another
    state["dirpath"] = str(new)
    state["best_k_models"] = {path: score for path, score in scores.items() if path in there}
    state |= {key: path if path in there else "" for key, path in paths.items()}
    # The latest file is written again; it was no candidate for the best.
    lost = [path for path in scores if path not in there and callback.monitor is not None]
    if lost:
        _rank(callback, state)
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        rank_zero_warn(
            f"{', '.join(lost[:3])}{more}: not there any more; what is left counts as the best"
        )
    return state


def _mover(old: Path, new: Path, ckpt: Path) -> Callable[[str], str] | None:
    """Return what a path is now; None where the checkpoint did not move with the folder."""
    if old == new:
        return lambda path: path
    place, run = ckpt.parent.resolve(), new.resolve()
    stayed = place.is_relative_to(old.absolute())
    if stayed or not (place.is_relative_to(run) or place.is_relative_to(run.parent)):
        return None
    return lambda path: str(new / Path(path).relative_to(old)) if _is_below(path, old) else path


def _is_below(path: str | Path, folder: Path) -> bool:
    return bool(path) and Path(path) != folder and Path(path).is_relative_to(folder)


def _is_file(path: str) -> bool:
    try:
        return Path(path).exists()  # a sharded checkpoint is a folder
    except OSError:  # a disk that does not answer: nothing is known, and nothing forgotten
        return True


def _rank(callback: ModelCheckpoint, state: dict[str, Any]) -> None:
    """Choose the best and the worst among the files that are left."""
    left = state["best_k_models"]
    if callback.monitor is None:
        return
    order: Iterable[str] = sorted(left, key=lambda path: float(left[path]))
    ranked = list(order) if callback.mode == "min" else list(order)[::-1]
    state["best_model_path"], state["kth_best_model_path"] = (
        (ranked[0], ranked[-1]) if ranked else ("", "")
    )
    state["best_model_score"] = left[ranked[0]] if ranked else None
    state["kth_value"] = left[ranked[-1]] if ranked else state.get("kth_value")
