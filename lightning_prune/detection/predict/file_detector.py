"""A detector in an exported file, ours or one that Ultralytics wrote."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune.detection.predict.detector import class_tuple
from lightning_prune.export.runtimes.onnx_file import OnnxFile
from lightning_prune.export.runtimes.open_file import open_file
from lightning_prune.export.runtimes.runtime import Port, Runtime
from lightning_prune.files.foreign_file import describe_foreign

_LAYOUT = "(batch, 4 + classes, anchors) before non-maximum suppression"


class FileDetector:
    """See ``Detector``; its facts are those that the file holds.

    Args:
        path: The file: ``.onnx``, or OpenVINO's ``.xml`` beside its ``.bin``.
        device: Cpu; of ONNX files also cuda or cuda:N.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: its runtime is not installed.
        ValueError: its runtime cannot read it, or it is no detector with one image in and
            ``output0`` of Ultralytics' layout out.
    """

    def __init__(self, path: Path, device: str = "cpu"):
        if not path.exists():
            raise FileNotFoundError(f"no model at {path}")
        self._file = _opened(path, device)
        try:
            self._read(self._file.facts)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _read(self, facts: Mapping[str, str]) -> None:
        task = facts.get("task", "detect")
        if task != "detect":
            raise ValueError(f"a model for the task {task!r}: only detectors are read")
        inputs, outputs = self._file.inputs, self._file.outputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(f"its inputs are {_listed(inputs)}: one input (B, C, H, W) is read")
        if inputs[0].kind not in ("float32", "float16"):
            raise ValueError(f"its input is {inputs[0].kind}: images in 16 or 32 bits are read")
        self.batch, channels, *size = inputs[0].shape
        self.channels = 3 if channels is None else channels
        if self.channels not in (1, 3):
            raise ValueError(f"it takes images of {channels} channels: pass one for 1 or 3")
        fixed = [side for side in size if side is not None]
        self.free = not fixed
        self.size = (fixed[0], fixed[1]) if len(fixed) == 2 else _size(facts)
        shape = outputs[0].shape
        rows = shape[1] if len(shape) == 3 else None
        names = _names(facts)
        self._count = rows - 4 if isinstance(rows, int) else len(names or ())
        suppressed = _truth(facts.get("end2end")) or "'nms': True" in facts.get("args", "")
        if len(outputs) != 1 or len(shape) != 3 or suppressed or self._count < 1:
            hint = "; export it with nms=False" if suppressed else ""
            raise ValueError(f"its outputs are {_listed(outputs)}: one of {_LAYOUT} is read{hint}")
        if names is not None and len(names) != self._count:
            raise ValueError(
                f"its output has {self._count} classes, its metadata name {len(names)}: "
                f"{_LAYOUT} is read"
            )
        self.names = class_tuple(names, self._count)

    def __call__(self, images: Tensor) -> Tensor:
        """See ``Detector``."""
        (found,) = self._file([images.cpu().numpy()])
        out = torch.from_numpy(found).float()
        if out.ndim != 3 or out.shape[1] != 4 + self._count:
            raise ValueError(f"the model gave {tuple(out.shape)}: {_LAYOUT} is read")
        return out

    @contextmanager
    def running(self) -> Iterator[None]:
        """Do nothing: a file has no mode."""
        yield


def _opened(path: Path, device: str) -> Runtime:
    if path.suffix.lower() != ".onnx":
        if device != "cpu":
            raise ValueError(f"device={device}: {path.suffix} files are run on the cpu")
        return open_file(path)
    foreign = describe_foreign(path, "onnx")
    if foreign is not None:
        raise ValueError(f"{path}: {foreign}")
    try:
        return OnnxFile(path, None, device)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _listed(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} {list(port.shape)}" for port in ports)


def _truth(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "true"


def _size(facts: Mapping[str, str]) -> tuple[int, int]:
    size = _value(facts.get("imgsz"))
    if isinstance(size, int):
        size = [size, size]
    sides = isinstance(size, list | tuple) and len(size) == 2
    if not sides or not all(isinstance(side, int) and 32 <= side <= 16384 for side in size):
        return 640, 640
    return size[0], size[1]


def _names(facts: Mapping[str, str]) -> list[str] | None:
    names = _value(facts.get("names"))
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        return [str(names[index]) for index in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _value(text: str | None) -> Any:
    """Read a literal of a stranger; None where it is none."""
    if text is None or len(text) > 1_000_000:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
