"""Opens an exported file in the runtime of its kind."""

from collections.abc import Callable
from pathlib import Path

from lightning_prune.export.runtimes.onnx_file import OnnxFile
from lightning_prune.export.runtimes.openvino_file import OpenVinoFile
from lightning_prune.export.runtimes.runtime import Runtime

_OPENERS: dict[str, Callable[[Path, int | None], Runtime]] = {
    ".onnx": lambda path, threads: OnnxFile(path, threads),
    ".xml": lambda path, threads: OpenVinoFile(path, threads),
}


def is_runtime_file(path: Path) -> bool:
    """Return whether the name is that of a file that a runtime opens.

    >>> is_runtime_file(Path("a/net.onnx")), is_runtime_file(Path("net.safetensors"))
    (True, False)
    """
    return path.suffix.lower() in _OPENERS


def open_file(path: Path, threads: int | None = None) -> Runtime:
    """Open an exported file.

    Args:
        path: The file.
        threads: How many compute; None: ``OMP_NUM_THREADS``, else what the runtime chooses.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: its runtime is not installed.
        ValueError: no runtime is known for it, or the runtime cannot read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        known = ", ".join(_OPENERS)
        raise ValueError(f"{path}: no runtime is known for it; those of {known} are")
    try:
        return opener(path, threads)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
