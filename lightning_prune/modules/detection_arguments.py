"""Arguments of the detection module: what was left out is filled in, everything is checked."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning_prune.models.yolov8.network import LARGEST_STRIDE, SIZES, Size
from lightning_prune.models.yolov8.weights import PretrainedWeights
from lightning_prune.modules.argument_ranges import (
    SCHEDULE_RANGES,
    Ranges,
    check_choices,
    check_ranges,
)


def resolve(
    found: PretrainedWeights | None,
    num_classes: int | None,
    size: Size | None,
    image_size: int | None,
    names: Sequence[str] | None,
) -> tuple[int, Size, int, list[str] | None]:
    """Fill what was left out from the weight file, or from the defaults.

    Returns:
        num_classes, size, image_size, names.

    Raises:
        ValueError: the arguments contradict the weights, or nothing says how many classes.
    """
    if found is not None and size is not None and size != found.size:
        raise ValueError(f"size={size!r}: the weights are of size {found.size!r}; leave size out")
    size = size or (cast(Size, found.size) if found is not None else "n")
    if num_classes is None:
        if found is None:
            raise ValueError("num_classes is missing: pass the number of classes, or weights")
        num_classes = found.num_classes
    if image_size is None:
        image_size = found.image_size if found is not None and found.image_size else 640
        image_size = math.ceil(image_size / LARGEST_STRIDE) * LARGEST_STRIDE
    names = None if names is None else [str(name) for name in names]
    if found is not None and found.names is not None and found.num_classes == num_classes:
        if names is not None and names != found.names:
            warnings.warn(
                f"names={names[:3]}... differ from those of the weights, {found.names[:3]}...: the "
                "class head keeps the order of the weights",
                stacklevel=4,
            )
        names = names or found.names
    return num_classes, size, image_size, names


_RANGES: Ranges = {
    **SCHEDULE_RANGES,
    "momentum": (0, 1, False, "a momentum in [0, 1)"),
    "box_gain": (0, math.inf, False, "a weight of at least 0"),
    "class_gain": (0, math.inf, False, "a weight of at least 0"),
    "dfl_gain": (0, math.inf, False, "a weight of at least 0"),
    "confidence": (0, 1, False, "a probability in [0, 1)"),
    "nms_iou": (0, 1, True, "an IoU in [0, 1]"),
    "object_confidence": (0, 1, False, "a probability in [0, 1)"),
    "num_classes": (1, 100_000, True, "an integer from 1 to 100000"),
    "max_detections": (1, 10**9, True, "an integer from 1 to 1000000000"),
    "image_size": (LARGEST_STRIDE, 16384, True, f"a multiple of {LARGEST_STRIDE} up to 16384"),
}
_INTEGERS = ("num_classes", "max_detections", "image_size", "schedule_epochs")
_CHOICES = {
    "size": tuple(SIZES),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("linear", "cosine", "one_cycle"),
}


def check(hparams: Mapping[str, Any]) -> None:
    """Check every argument of a ``DetectionModule``.

    Raises:
        ValueError: an argument is out of range; the message says what is allowed.
    """
    check_choices(hparams, _CHOICES)
    check_ranges(hparams, _RANGES, _INTEGERS)
    if hparams["image_size"] % LARGEST_STRIDE:
        raise ValueError(f"image_size={hparams['image_size']}: pass a multiple of {LARGEST_STRIDE}")
    topk, reset_blocks = hparams["topk"], hparams["reset_blocks"]
    if not isinstance(reset_blocks, bool):
        raise ValueError(f"reset_blocks={reset_blocks!r}: pass true or false")
    number = isinstance(topk, int | float) and not isinstance(topk, bool)
    if topk is not None and not (number and 0 < topk <= 1):
        raise ValueError(f"topk={topk!r}: pass the fraction of places that stay, in (0, 1]")
    if topk is not None and not reset_blocks:
        raise ValueError(f"topk={topk} needs reset_blocks=true: other blocks know no top-k")
    names = hparams["names"]
    if names is not None and len(names) != hparams["num_classes"]:
        raise ValueError(
            f"names has {len(names)} entries, num_classes is {hparams['num_classes']}: pass one "
            "name per class"
        )
