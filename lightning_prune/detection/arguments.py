"""Arguments of the detection module: what was left out is filled in, everything is checked."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor

from lightning_prune.detection.network.architecture import Architecture
from lightning_prune.detection.network.network import CUSTOM, LARGEST_STRIDE, Size
from lightning_prune.detection.weights.infer_architecture import FIRST
from lightning_prune.detection.weights.read_weights import PretrainedWeights


class Resolved(NamedTuple):
    """Arguments of which none is left out.

    Attributes:
        num_classes: Number of classes.
        size: n, s, m, l, x or custom.
        image_size: Side of the images in pixels.
        names: Class names, or None.
        in_channels: Channels of the images.
        architecture: What is not as published, as plain values; None: nothing.
        replaced: Names of what computes otherwise than the weights were trained with.
    """

    num_classes: int
    size: Size
    image_size: int
    names: list[str] | None
    in_channels: int
    architecture: dict[str, Any] | None
    replaced: list[str]


def resolve(
    found: PretrainedWeights | None,
    num_classes: int | None,
    size: Size | None,
    image_size: int | None,
    names: Sequence[str] | None,
    in_channels: int | None = None,
    architecture: Mapping[str, Any] | None = None,
) -> Resolved:
    """Fill what was left out from the weight file, or from the defaults.

    Raises:
        ValueError: the arguments contradict the weights, or nothing says how many classes.
    """
    if found is not None and size is not None and size != found.size:
        raise ValueError(f"size={size!r}: the weights are of size {found.size!r}; leave size out")
    if num_classes is None:
        if found is None:
            raise ValueError("num_classes is missing: pass the number of classes, or weights")
        num_classes = found.num_classes
    if image_size is None:
        image_size = found.image_size if found is not None and found.image_size else 640
        image_size = math.ceil(image_size / LARGEST_STRIDE) * LARGEST_STRIDE
    if in_channels is None:
        in_channels = 3 if found is None else found.in_channels
    built, replaced = _architecture(found, num_classes, architecture)
    if size is None:
        whole = built.widths is not None and built.depths is not None
        own = CUSTOM if whole else "n"
        size = cast(Size, own if found is None else found.size)
    names = None if names is None else [str(name) for name in names]
    if found is not None and found.names is not None and found.num_classes == num_classes:
        # A network of Ultralytics that saw no data calls its classes 0, 1, ...
        numbers = found.names == [str(index) for index in range(num_classes)]
        if names is not None and names != found.names and not numbers:
            warnings.warn(
                f"names={names[:3]}... differ from those of the weights, {found.names[:3]}...: the "
                "class head keeps the order of the weights",
                stacklevel=4,
            )
        names = names or found.names
    changes = built.changes() or None
    return Resolved(num_classes, size, image_size, names, in_channels, changes, replaced)


_OF_SHAPES = ("pools", "class_width", "box_width", "widths", "depths")


def _architecture(
    found: PretrainedWeights | None, num_classes: int, given: Mapping[str, Any] | None
) -> tuple[Architecture, list[str]]:
    """Merge what the weights say and what was asked for; say what was replaced."""
    asked = Architecture.of(given)  # checks the names too
    if found is None:
        return asked, []
    values = dict(found.architecture)
    if num_classes != found.num_classes:
        values.pop("class_width", None)  # the class branches start fresh
    own, replaced = Architecture.of(values), []
    for name in (key for key, value in (given or {}).items() if value is not None):
        old, new = getattr(own, name), getattr(asked, name)
        if old == new:
            continue
        if name in _OF_SHAPES and (name != "class_width" or num_classes == found.num_classes):
            raise ValueError(
                f"architecture.{name}={given[name]}: the weights have {old or 'the published one'};"  # type: ignore[index]
                " leave it out"
            )
        values[name] = new
        if found.stated:
            replaced.append(name)
            warnings.warn(
                f"architecture.{name}={new} replaces what the weights were trained with, {old}: "
                "the network has to learn again",
                stacklevel=5,
            )
    return Architecture.of(values), replaced


THRESHOLD = 1e-6
"""Mean magnitude above which a channel of a ``CSPReset`` block counts as used, by default."""


def check(hparams: Mapping[str, Any]) -> None:
    """Check which arguments of a ``DetectionModule`` go together.

    Raises:
        ValueError: two do not; the message says what to do.
    """
    if not hparams["reset_blocks"]:
        needs = "needs reset_blocks=true: other blocks"
        if hparams["topk"] is not None:
            raise ValueError(f"topk={hparams['topk']} {needs} know no top-k")
        if hparams["threshold"] != THRESHOLD:
            raise ValueError(f"threshold={hparams['threshold']} {needs} count nothing")
    names = hparams["names"]
    if names is not None and len(names) != hparams["num_classes"]:
        raise ValueError(
            f"names has {len(names)} entries, num_classes is {hparams['num_classes']}: pass one "
            "name per class"
        )


def check_targets(targets: Any) -> None:
    """Refuse batches that are not of a detector, such as those of a classifier.

    Raises:
        ValueError: these are no boxes.
    """
    if not isinstance(targets, Mapping) or not {"image", "label", "box"} <= targets.keys():
        found = f"{{{', '.join(map(str, targets))}}}" if isinstance(targets, Mapping) else ""
        raise ValueError(
            f"the data deliver {found or type(targets).__name__} beside the images, a detector "
            "takes {image, label, box}: choose data=yolo_folder or data=coco_json, or a model for "
            "these data"
        )


def check_channels(delivered: int, taken: int) -> None:
    """Compare the channels of images with those that the network takes.

    Raises:
        ValueError: they differ.
    """
    if delivered != taken:
        ways = "data.channels=1 reads images as grey" if taken == 1 else f"in_channels={delivered}"
        raise ValueError(
            f"the images have {_count(delivered)}, the network takes {_count(taken)}: {ways}"
            + (f", in_channels={delivered} builds one for these" if taken == 1 else " builds one")
        )


def _count(channels: int) -> str:
    return f"{channels} channel" if channels == 1 else f"{channels} channels"


def adapt_channels(found: PretrainedWeights, in_channels: int) -> dict[str, Tensor]:
    """Return the weights for images of another number of channels, which see grey ones alike.

    Raises:
        ValueError: neither number is 1, or the weights are pruned.
    """
    state, own = dict(found.state_dict), found.in_channels
    if own == in_channels:
        return state
    if found.record is not None or 1 not in (own, in_channels):
        pruned = "pruned weights" if found.record is not None else "these"
        raise ValueError(
            f"in_channels={in_channels}: the weights take images of {_count(own)}, and {pruned} "
            "cannot be turned: leave in_channels out, or pass 1 for grey images"
        )
    first = state[FIRST]
    state[FIRST] = (
        first.sum(1, keepdim=True)
        if in_channels == 1
        else first.repeat(1, in_channels, 1, 1) / in_channels
    )
    return state
