"""Size, classes and widths of a YOLOv8 from the shapes of its tensors."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_prune.detection.network.architecture import Architecture
from lightning_prune.detection.network.head import published_box_width, published_class_width
from lightning_prune.detection.network.network import CUSTOM, SIZES, YOLOv8

FIRST = "backbone.p1.conv.weight"
"""The tensor that reads the image."""
CLASSES = "head.classes.0.2.weight"
"""A tensor that makes the classes."""
_DOWN = (FIRST, *(f"backbone.p{stage}.down.conv.weight" for stage in (2, 3, 4, 5)))
_POOLED = ("backbone.p5.spp.conv1.conv.weight", "backbone.p5.spp.conv2.conv.weight")
_BOX, _CLASS = "head.boxes.0.0.conv.weight", "head.classes.0.0.conv.weight"
Shapes = Mapping[str, tuple[int, ...]]


class Inferred(NamedTuple):
    """What follows from the shapes of a state dict.

    Attributes:
        size: n, s, m, l or x; custom where widths and depths are of none of these.
        num_classes: Number of classes.
        in_channels: Channels of the image.
        architecture: What is not as published.
    """

    size: str
    num_classes: int
    in_channels: int
    architecture: Architecture


def infer_architecture(state_dict: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return size and number of classes of a state dict under the names of ``YOLOv8``.

    Raises:
        ValueError: it is not a YOLOv8.

    >>> infer_architecture(YOLOv8("s", num_classes=3).state_dict())
    ('s', 3)
    """
    found = infer_from_shapes({name: tuple(tensor.shape) for name, tensor in state_dict.items()})
    return found.size, found.num_classes


def infer_from_shapes(shapes: Shapes, said: Mapping[str, Any] | None = None) -> Inferred:
    """Return the architecture that follows from the shapes of a state dict.

    Args:
        shapes: By the names of ``YOLOv8``.
        said: Values of ``Architecture`` that are known from elsewhere; shapes overrule them.

    Raises:
        ValueError: the shapes are not those of a YOLOv8, or a name that is said is not in it.
    """
    said = said or {}
    for name in (*_DOWN, CLASSES, *_POOLED, _BOX, _CLASS):
        if name not in shapes:
            raise ValueError(f"no YOLOv8 detector: {name} is missing")
        if len(shapes[name]) != 4 or min(shapes[name]) < 1:
            raise ValueError(f"no YOLOv8 detector: {name} is of shape {shapes[name]}")
    widths = tuple(shapes[name][0] for name in _DOWN)
    depths = tuple(_depth(shapes, stage) for stage in (2, 3, 4))
    size = next((n for n, s in SIZES.items() if (s.widths, s.depths) == (widths, depths)), CUSTOM)
    num_classes = shapes[CLASSES][0]
    box, classes = shapes[_BOX][0], shapes[_CLASS][0]
    values = {
        "widths": list(widths) if size == CUSTOM else None,
        "depths": list(depths) if size == CUSTOM else None,
        "pools": max(0, shapes[_POOLED[1]][1] // shapes[_POOLED[0]][0] - 1),
        "box_width": None if box == published_box_width(widths[2]) else box,
        "class_width": (
            None if classes == published_class_width(widths[2], num_classes) else classes
        ),
    }
    if said.get("pools") not in (None, values["pools"]):
        raise ValueError(
            f"its pyramid says {said['pools']} pools and is as wide as for {values['pools']}"
        )
    found = Inferred(size, num_classes, shapes[FIRST][1], Architecture.of({**said, **values}))
    _compare(shapes, found)
    return found


def _depth(shapes: Shapes, stage: int) -> int:
    pattern = re.compile(rf"backbone\.p{stage}\.csp\.bottlenecks\.(\d{{1,4}})\.")
    return 1 + max((int(m[1]) for name in shapes if (m := pattern.match(name))), default=-1)


def _compare(shapes: Shapes, found: Inferred) -> None:
    built = found.architecture
    with torch.device("meta"):
        network = YOLOv8(found.size, found.num_classes, found.in_channels, architecture=built)
    # The record of what is not as published is no tensor of the network.
    expected = {
        name: tuple(value.shape)
        for name, value in (*network.named_parameters(), *network.named_buffers())
    }
    wrong = [f"{name} is missing" for name in expected if name not in shapes]
    wrong += [f"{name} is unknown" for name in shapes if name not in expected]
    wrong += [
        f"{name} is {shape} instead of {expected[name]}"
        for name, shape in shapes.items()
        if name in expected and shape != expected[name]
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        what = found.size if built.widths is None else f" of widths {built.widths}"
        raise ValueError(
            f"no YOLOv8{what} of {found.num_classes} classes: {'; '.join(wrong[:3])}{more}"
        )
