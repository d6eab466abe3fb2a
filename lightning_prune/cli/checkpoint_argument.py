"""The checkpoint that a command means when it is given the folder of a run."""

import sys
from pathlib import Path

from lightning_prune.errors import ConfigError
from lightning_prune.runs.say import say

_REPORT = "pruning_report.json"
_SHOWN = 3


def checkpoint_argument(path: Path) -> Path:
    """Return the checkpoint of a run's folder; a file, and what is not there, stays as it is.

    Of the files in `checkpoints/`, else of those in the folder itself, it is the first of

    1. `best_pruned*.ckpt`, the best after the cut;
    2. `last*.ckpt` where the run has a `pruning_report.json`: its best is usually the dense model;
    3. `best*.ckpt`;
    4. `last*.ckpt`;
    5. any other `*.ckpt`;

    and of several with such a name the one that was written last. Which one it is, is said on
    standard error.

    Args:
        path: What was given: a file, the folder of a run, or its `checkpoints/`.

    Raises:
        ConfigError: there is no checkpoint in the folder, or it is that of a sweep.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    files = _files(path)
    if not files:
        raise ConfigError(_nothing(path))
    run = path.parent if path.name == "checkpoints" else path
    pruned = (run / _REPORT).is_file()
    order = ["best_pruned", *(["last"] if pruned else []), "best", "last", ""]
    named = ([file for file in files if file.name.startswith(start)] for start in order)
    chosen = max(next(filter(None, named)), key=lambda file: (file.stat().st_mtime_ns, file.name))
    others = f" (of {len(files)} checkpoints there)" if len(files) > 1 else ""
    say(f"{path} is the folder of a run: {chosen} is taken{others}", sys.stderr)
    return chosen


def _files(folder: Path) -> list[Path]:
    found = sorted((folder / "checkpoints").glob("*.ckpt")) or sorted(folder.glob("*.ckpt"))
    return [file for file in found if file.is_file()]


def _nothing(folder: Path) -> str:
    runs = sorted(run for run in folder.iterdir() if run.is_dir() and _files(run))
    if not runs:
        return (
            f"no *.ckpt in {folder} or {folder / 'checkpoints'}: give a checkpoint, or the folder "
            "of a run, such as outputs/DATE/TIME"
        )
    names = ", ".join(str(run) for run in runs[:_SHOWN])
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"{folder} holds several runs: give the folder of one of them ({names}{more})"
