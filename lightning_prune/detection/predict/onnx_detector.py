"""A detector in an ONNX file, ours or one that Ultralytics exported."""

import ast
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune.detection.predict.detector import class_tuple
from lightning_prune.export.session import open_session, run_session
from lightning_prune.files.foreign_file import describe_foreign

_LAYOUT = "(batch, 4 + classes, anchors) before non-maximum suppression"


class OnnxDetector:
    """See ``Detector``; its facts are those that the file holds.

    Args:
        path: The file.
        device: Cpu, or cuda or cuda:N.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: ONNX Runtime is not installed.
        ValueError: it is no ONNX file, or no detector with one image in and ``output0`` of
            Ultralytics' layout out.
    """

    def __init__(self, path: Path, device: str = "cpu"):
        if not path.exists():
            raise FileNotFoundError(f"no model at {path}")
        foreign = describe_foreign(path, "onnx")
        if foreign is not None:
            raise ValueError(f"{path}: {foreign}")
        try:
            self._session = open_session(path, device)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        facts = self._session.get_modelmeta().custom_metadata_map
        try:
            self._read(facts)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _read(self, facts: Mapping[str, str]) -> None:
        task = facts.get("task", "detect")
        if task != "detect":
            raise ValueError(f"a model for the task {task!r}: only detectors are read")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            given = ", ".join(f"{node.name} {node.shape}" for node in inputs)
            raise ValueError(f"its inputs are {given}: one input (B, C, H, W) is read")
        (self._input,) = inputs
        if self._input.type not in ("tensor(float)", "tensor(float16)"):
            raise ValueError(f"its input is {self._input.type}: images in 16 or 32 bits are read")
        batch, channels, *size = self._input.shape
        self.batch = batch if isinstance(batch, int) else None
        self.channels = channels if isinstance(channels, int) else 3
        if self.channels not in (1, 3):
            raise ValueError(f"it takes images of {channels} channels: pass one for 1 or 3")
        fixed = [side for side in size if isinstance(side, int)]
        self.free = not fixed
        self.size = (fixed[0], fixed[1]) if len(fixed) == 2 else _size(facts)
        shape = outputs[0].shape
        rows = shape[1] if len(shape) == 3 else None
        names = _names(facts)
        self._count = rows - 4 if isinstance(rows, int) else len(names or ())
        suppressed = _truth(facts.get("end2end")) or "'nms': True" in facts.get("args", "")
        if len(outputs) != 1 or len(shape) != 3 or suppressed or self._count < 1:
            given = ", ".join(f"{node.name} {node.shape}" for node in outputs)
            hint = "; export it with nms=False" if suppressed else ""
            raise ValueError(f"its outputs are {given}: one of {_LAYOUT} is read{hint}")
        if names is not None and len(names) != self._count:
            raise ValueError(
                f"its output has {self._count} classes, its metadata name {len(names)}: "
                f"{_LAYOUT} is read"
            )
        self.names = class_tuple(names, self._count)

    def __call__(self, images: Tensor) -> Tensor:
        """See ``Detector``."""
        half = self._input.type == "tensor(float16)"
        feed = {self._input.name: (images.half() if half else images).cpu().numpy()}
        (found,) = run_session(self._session, feed)
        out = torch.from_numpy(found).float()
        if out.ndim != 3 or out.shape[1] != 4 + self._count:
            raise ValueError(f"the model gave {tuple(out.shape)}: {_LAYOUT} is read")
        return out

    @contextmanager
    def running(self) -> Iterator[None]:
        """Do nothing: a session has no mode."""
        yield


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
