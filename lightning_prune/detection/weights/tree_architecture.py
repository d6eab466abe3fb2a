"""What the modules of a pickled YOLOv8 say of its architecture: read, not guessed from shapes."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lightning_prune.detection.network.activations import describe_activation
from lightning_prune.detection.network.head import BINS, STRIDES
from lightning_prune.detection.weights.conversion import CSP_BLOCKS, HEAD, PLAIN, SPP, convert_name
from lightning_prune.detection.weights.module_tree import child_at, children_of, kind_of
from lightning_prune.detection.weights.other_models import refuse_other_layers
from lightning_prune.files.inert_pickle import Record

_SOURCES: dict[int, Any] = {
    11: [-1, 6], 14: [-1, 4], 17: [-1, 12], 20: [-1, 9], HEAD: [15, 18, 21],
}  # fmt: skip
"""Layers that do not read the one before them (-1) alone."""
_FUSED = (
    "its batch norms are merged into the convolutions (fused for inference), and training and "
    "pruning need them: start from the file before fusing, such as best.pt"
)


def tree_architecture(model: Record) -> dict[str, Any]:
    """Return what the modules of a YOLOv8 detector say of its ``Architecture``.

    Args:
        model: The pickled model; its layers are the children of its child ``model``.

    Returns:
        Values of ``Architecture`` by name; those that follow from shapes are not among them.

    Raises:
        ValueError: a layer or a value of a layer is not one of a YOLOv8 detector.
    """
    layers = [layer for _, layer in sorted(_numbered(model).items())]
    _check_layers(layers)
    said = _conv_facts(_convs(layers))
    said["shortcuts"] = _shortcuts(layers)
    said.update(_pyramid(layers[SPP]))
    _check_head(layers[HEAD])
    return said


def _numbered(model: Record) -> dict[int, Record]:
    below = child_at(model, "model") or model
    children = children_of(below)
    if not children or not all(name.isdigit() for name in children):
        raise ValueError(f"a {kind_of(model) or 'model'} without numbered layers: no YOLOv8")
    return {int(name): child for name, child in children.items()}


def _check_layers(layers: list[Record]) -> None:
    end_to_end = any(name.startswith("one2one") for name in children_of(layers[-1]))
    refuse_other_layers([kind_of(layer) for layer in layers], end_to_end)
    for index, layer in enumerate(layers):
        source = layer.attributes.get("f", _SOURCES.get(index, -1))
        if source != _SOURCES.get(index, -1):
            raise ValueError(
                f"layer {index} reads from {source}, in YOLOv8 from {_SOURCES.get(index, -1)}"
            )
        if kind_of(layer) == "Upsample":
            _same(layer, f"layer {index}", scale_factor=2.0, mode="nearest")
        if kind_of(layer) == "Concat":
            _same(layer, f"layer {index}", d=1)


def _convs(layers: list[Record]) -> Iterator[tuple[str, Record]]:
    """Go through the convolution blocks with their names in the file."""
    for index in PLAIN:
        yield f"model.{index}", layers[index]
    for index in CSP_BLOCKS:
        yield from _pair(f"model.{index}", layers[index])
        for number, bottleneck in children_of(_child(layers[index], f"model.{index}", "m")).items():
            yield from _pair(f"model.{index}.m.{number}", bottleneck, "Bottleneck")
    yield from _pair(f"model.{SPP}", layers[SPP])
    for branch in ("cv2", "cv3"):
        for level in range(len(STRIDES)):
            place = f"model.{HEAD}"
            for number in ("0", "1"):
                inner = f"{branch}.{level}.{number}"
                yield f"{place}.{inner}", _child(layers[HEAD], place, inner)


def _pair(place: str, block: Record, kind: str | None = None) -> Iterator[tuple[str, Record]]:
    if kind is not None and kind_of(block) != kind:
        raise ValueError(f"{place} is a {kind_of(block)}, in YOLOv8 a {kind}")
    for name in ("cv1", "cv2"):
        yield f"{place}.{name}", _child(block, place, name)


def _child(module: Record, place: str, path: str) -> Record:
    found = child_at(module, path)
    if found is None:
        raise ValueError(f"{place} has no {path}: no block of a YOLOv8 detector")
    return found


def _conv_facts(convs: Iterator[tuple[str, Record]]) -> dict[str, Any]:
    activations: dict[str, str] = {}
    norms: dict[tuple[Any, Any], str] = {}
    for place, block in convs:
        if kind_of(block) != "Conv":
            depthwise = place.startswith(f"model.{HEAD}.cv3") and kind_of(block) == "Sequential"
            what = "depthwise, as in YOLO11 and later" if depthwise else f"a {kind_of(block)}"
            raise ValueError(f"{place} is {what}, in YOLOv8 a Conv")
        stride = 2 if place.removeprefix("model.") in map(str, PLAIN) else 1
        _check_conv(block, place, stride)
        norm = _norm(block, place)
        norms.setdefault((norm.attributes.get("eps"), norm.attributes.get("momentum")), place)
        text = _activation(block, place)
        for name in convert_name(f"{place}.conv.weight"):
            activations[name.removesuffix(".conv.weight")] = text
    if len(norms) > 1:
        (one, first), (other, second) = list(norms.items())[:2]
        raise ValueError(
            f"batch norms with different eps and momentum are not read: {one} at {first}, {other} "
            f"at {second}"
        )
    ((eps, momentum),) = norms
    usual = Counter(activations.values()).most_common(1)[0][0]
    single = {name: text for name, text in activations.items() if text != usual}
    return {
        "activation": usual, "activations": single, "norm_eps": eps, "norm_momentum": momentum,
    }  # fmt: skip


def _check_conv(block: Record, place: str, stride: int) -> None:
    conv = _child(block, place, "conv")
    if "quant" in conv.path.lower() or ".qat." in conv.path:
        raise ValueError(f"{place} is quantized ({conv.path}): start from the file before that")
    if kind_of(conv) != "Conv2d":
        raise ValueError(f"{place}.conv is a {kind_of(conv)}, in YOLOv8 a Conv2d")
    sides = tuple(conv.attributes.get("kernel_size") or ())
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise ValueError(f"{place}.conv has a kernel of {sides} pixels, in YOLOv8 a square one")
    half = (sides[0] // 2, sides[0] // 2)
    _same(
        conv, f"{place}.conv", stride=(stride, stride), padding=half, dilation=(1, 1),
        groups=1, padding_mode="zeros",
    )  # fmt: skip


def _norm(block: Record, place: str) -> Record:
    norm = child_at(block, "bn")
    if norm is None or kind_of(norm) == "Identity":
        raise ValueError(f"{place} has no batch norm: {_FUSED}")
    if kind_of(norm) not in ("BatchNorm2d", "SyncBatchNorm"):
        raise ValueError(f"{place}.bn is a {kind_of(norm)}, in YOLOv8 a BatchNorm2d")
    _same(norm, f"{place}.bn", affine=True, track_running_stats=True)
    return norm


def _activation(block: Record, place: str) -> str:
    act = child_at(block, "act")
    if act is None:
        raise ValueError(f"{place} does not say its activation: no block of a YOLOv8 detector")
    try:
        return describe_activation(act.path, act.attributes)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _shortcuts(layers: list[Record]) -> list[str]:
    adding = []
    for index, block in CSP_BLOCKS.items():
        bottlenecks = children_of(_child(layers[index], f"model.{index}", "m")).values()
        found = {bool(each.attributes.get("add", "backbone" in block)) for each in bottlenecks}
        if len(found) > 1:
            raise ValueError(f"model.{index}: some of its bottlenecks add their input, others not")
        if found == {True} or (not found and "backbone" in block):
            adding.append(block)
    return adding


def _pyramid(layer: Record) -> dict[str, Any]:
    place = f"model.{SPP}"
    pool = _child(layer, place, "m")
    if kind_of(pool) != "MaxPool2d":
        raise ValueError(f"{place}.m is a {kind_of(pool)}, in YOLOv8 a MaxPool2d")
    kernel = pool.attributes.get("kernel_size")
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"{place}.m pools {str(kernel)[:40]} pixels: only odd squares are read")
    _same(pool, f"{place}.m", stride=1, padding=kernel // 2, dilation=1, ceil_mode=False)
    found = {"pool_kernel": kernel, "pool_shortcut": bool(layer.attributes.get("add", False))}
    if isinstance(pools := layer.attributes.get("n"), int):
        found["pools"] = pools
    return found


def _check_head(head: Record) -> None:
    place = f"model.{HEAD}"
    _same(head, place, nl=len(STRIDES), reg_max=BINS)
    stride = head.attributes.get("stride")
    if isinstance(stride, Tensor) and stride.numel() and bool(stride.any()):
        steps = stride.flatten().tolist()
        if steps != list(STRIDES):
            raise ValueError(f"{place} works at strides of {steps} pixels, YOLOv8 at {STRIDES}")
    for branch in ("cv2", "cv3"):
        for level in range(len(STRIDES)):
            last = _child(head, place, f"{branch}.{level}.2")
            _same(last, f"{place}.{branch}.{level}.2", stride=(1, 1), padding=(0, 0), groups=1)


def _same(module: Record, place: str, **wanted: Any) -> None:
    """Compare attributes; one that the file leaves out is as wanted."""
    for name, value in wanted.items():
        found = module.attributes.get(name, value)
        if _plain(found) != _plain(value):
            raise ValueError(f"{place} has {name}={str(found)[:60]}, in YOLOv8 {value}")


def _plain(value: Any) -> Any:
    """Return a side for a pair of equal sides, and None for what is no plain value."""
    if isinstance(value, list | tuple) and all(isinstance(side, int) for side in value):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value if isinstance(value, int | float | str) else None
