"""From the state-dict names of Ultralytics to those of this network."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_CONV_PARTS = {"conv": "conv", "bn": "norm"}
_PLAIN = {
    0: "backbone.p1",
    1: "backbone.p2.down",
    3: "backbone.p3.down",
    5: "backbone.p4.down",
    7: "backbone.p5.down",
    16: "neck.down3",
    19: "neck.down4",
}
_CSP = {
    2: "backbone.p2.csp",
    4: "backbone.p3.csp",
    6: "backbone.p4.csp",
    8: "backbone.p5.csp",
    12: "neck.top_down4",
    15: "neck.top_down3",
    18: "neck.bottom_up4",
    21: "neck.bottom_up5",
}
_SPP = 9
HEAD = 22
_BRANCHES = {"cv2": "boxes", "cv3": "classes"}
_INTEGER_SCALAR = "num_batches_tracked"


def convert_ultralytics(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an Ultralytics YOLOv8 detector to the names of ``YOLOv8``.

    The 1x1 convolution that opens a CSP block is split in halves, ``conv1`` and ``conv2``.

    Args:
        state_dict: Names ``model.N...`` (a leading ``model.`` more, or ``module.``, is accepted).

    Raises:
        ValueError: a name is not one of a YOLOv8 detector, two names mean the same tensor, or the
            rows of a CSP block cannot be halved.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        for new_name, value in _convert(name, tensor):
            if new_name in converted:
                raise ValueError(f"two tensors of the file are {new_name}; one of them is {name}")
            converted[new_name] = value
    return converted


def strip_wrappers(name: str) -> str:
    """Remove the prefixes of wrapped models, so that the name starts with ``model.<number>``."""
    found = re.search(r"(?:^|\.)(model\.\d+\..+)$", name.replace("_orig_mod.", ""))
    return found.group(1) if found else name


def refuse_other_models(names: Iterable[str]) -> None:
    """Say by name which other Ultralytics model a state dict belongs to.

    Raises:
        ValueError: it is not a YOLOv8 detector.
    """
    names = list(names)
    reason = _other_model(names)
    if reason:
        raise ValueError(f"{reason}: only YOLOv8 detection models are read")


def _other_model(names: list[str]) -> str | None:
    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    if not has(r"model\.\d+\."):
        some = ", ".join(names[:3]) or "nothing"
        return f"unknown names ({some})"
    if has(r"model\.\d+\.linear\.weight"):
        return "a classification model"
    if has(r"model\.\d+\.proto\."):
        return "a segmentation model"
    if has(r"model\.\d+\.one2one_"):
        return "a YOLOv10 or YOLO26 detector"
    if has(r"model\.\d+\.cv4\.\d"):
        return "a pose or oriented-box model"
    if has(r"model\.\d+\.m\.0\.weight"):
        return "an anchor-based detector (YOLOv5 or older)"
    heads = {int(n.split(".")[1]) for n in names if re.match(r"model\.\d+\.cv3\.0\.2\.", n)}
    generation = {23: "YOLO11 or YOLO12", 24: "YOLOv5u", 28: "YOLOv8-p2", 29: "YOLOv8-p6"}
    if heads and HEAD not in heads:
        index = max(heads)
        return f"a {generation.get(index, 'foreign')} detector (its head is layer {index})"
    return None


def _convert(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    found = re.fullmatch(r"model\.(\d+)\.(.+)", strip_wrappers(name))
    if not found:
        raise ValueError(f"{name} is not a tensor of an Ultralytics YOLOv8 detector")
    index, rest = int(found.group(1)), found.group(2)
    if index in _PLAIN:
        return [(f"{_PLAIN[index]}.{_conv(name, rest)}", _shaped(rest, tensor))]
    if index in _CSP:
        return _convert_csp(name, _CSP[index], rest, tensor)
    if index == _SPP:
        return [(f"backbone.p5.spp.{_numbered(name, rest)}", _shaped(rest, tensor))]
    if index == HEAD:
        return [(_head(name, rest), _shaped(rest, tensor))]
    raise ValueError(f"{name}: layer {index} has no tensors in a YOLOv8 detector")


def _convert_csp(name: str, block: str, rest: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    bottleneck = re.fullmatch(r"m\.(\d+)\.(.+)", rest)
    if bottleneck:
        inner = _numbered(name, bottleneck.group(2))
        return [(f"{block}.bottlenecks.{bottleneck.group(1)}.{inner}", _shaped(rest, tensor))]
    if rest.startswith("cv2."):
        return [(f"{block}.conv3.{_conv(name, rest[4:])}", _shaped(rest, tensor))]
    if not rest.startswith("cv1."):
        raise ValueError(f"{name} is not a tensor of a CSP block")
    part = _conv(name, rest[4:])
    if rest.endswith(_INTEGER_SCALAR):
        scalar = _shaped(rest, tensor)
        return [(f"{block}.conv1.{part}", scalar), (f"{block}.conv2.{part}", scalar.clone())]
    if tensor.ndim == 0 or tensor.shape[0] % 2:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} cannot be split in halves")
    first, second = tensor.chunk(2)
    return [(f"{block}.conv1.{part}", first.clone()), (f"{block}.conv2.{part}", second.clone())]


def _head(name: str, rest: str) -> str:
    if rest == "dfl.conv.weight":
        return "head.dfl.bins"
    found = re.fullmatch(r"(cv2|cv3)\.([0-2])\.(?:([01])\.(.+)|2\.(weight|bias))", rest)
    if not found:
        raise ValueError(f"{name} is not a tensor of a YOLOv8 detection head")
    branch, level, hidden, inner, last = found.groups()
    tail = f"2.{last}" if last else f"{hidden}.{_conv(name, inner)}"
    return f"head.{_BRANCHES[branch]}.{level}.{tail}"


def _numbered(name: str, rest: str) -> str:
    found = re.fullmatch(r"cv([12])\.(.+)", rest)
    if not found:
        raise ValueError(f"{name} is not a tensor of a YOLOv8 detector")
    return f"conv{found.group(1)}.{_conv(name, found.group(2))}"


def _conv(name: str, rest: str) -> str:
    kind, _, tensor = rest.partition(".")
    if kind not in _CONV_PARTS or not tensor or "." in tensor:
        raise ValueError(f"{name} is not a tensor of a YOLOv8 detector (fused or other layers?)")
    return f"{_CONV_PARTS[kind]}.{tensor}"


def _shaped(rest: str, tensor: Tensor) -> Tensor:
    # Exported files store the counter as (1,) and the DFL bins as a 1x1 convolution.
    if rest.endswith(_INTEGER_SCALAR):
        return tensor.reshape(())
    return tensor.reshape(-1) if rest == "dfl.conv.weight" else tensor
