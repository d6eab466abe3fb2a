"""The file that a command means when it is given the folder of a run or of a bundle."""

import sys
from pathlib import Path

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.kinds import KINDS
from lightning_prune.export.bundle.read_bundle import BundleFile, is_bundle, read_bundle
from lightning_prune.runs.say import say


def model_argument(path: Path) -> Path:
    """Return the file to run: of a bundle the first whose runtime is installed, of a run the best.

    Args:
        path: What was given: a file, the folder of a bundle, or that of a run.

    Raises:
        ConfigError: there is none in the folder, or one was altered.
        ModuleNotFoundError: no runtime of the bundle's files is installed.
    """
    path = Path(path).expanduser()
    if not is_bundle(path):
        return checkpoint_argument(path)
    files = read_bundle(path)
    if not files:
        raise ConfigError(f"{path} is a bundle without a file: none of them passed its gate")
    chosen = next((file for file in files if missing_runtime(file) is None), None)
    if chosen is None:
        raise ModuleNotFoundError("\n".join(dict.fromkeys(str(missing_runtime(f)) for f in files)))
    others = f" (of {len(files)} files there)" if len(files) > 1 else ""
    say(f"{path} is a bundle: {chosen.path} is taken{others}", sys.stderr)
    return chosen.path


def missing_runtime(file: BundleFile) -> str | None:
    """Return what has to be installed to run a file; None: nothing."""
    kind = KINDS.get(file.kind)
    return f"{file.path}: an unknown format, {file.kind}" if kind is None else kind.missing_runtime
