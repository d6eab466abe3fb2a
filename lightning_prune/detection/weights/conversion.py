"""From the state-dict names of Ultralytics to those of this network."""

import re
from collections.abc import Mapping

from torch import Tensor

_CONV_PARTS = {"conv": "conv", "bn": "norm"}
PLAIN = {
    0: "backbone.p1",
    1: "backbone.p2.down",
    3: "backbone.p3.down",
    5: "backbone.p4.down",
    7: "backbone.p5.down",
    16: "neck.down3",
    19: "neck.down4",
}
CSP_BLOCKS = {
    2: "backbone.p2.csp",
    4: "backbone.p3.csp",
    6: "backbone.p4.csp",
    8: "backbone.p5.csp",
    12: "neck.top_down4",
    15: "neck.top_down3",
    18: "neck.bottom_up4",
    21: "neck.bottom_up5",
}
SPP = 9
HEAD = 22
_BRANCHES = {"cv2": "boxes", "cv3": "classes"}
_INTEGER_SCALAR = "num_batches_tracked"
_BINS = "dfl.conv.weight"


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
        new_names = convert_name(name)
        for new_name, value in zip(new_names, _parts(name, tensor, len(new_names)), strict=True):
            if new_name in converted:
                raise ValueError(f"two tensors of the file are {new_name}; one of them is {name}")
            converted[new_name] = value
    return converted


def strip_wrappers(name: str) -> str:
    """Remove the prefixes of wrapped models, so that the name starts with ``model.<number>``."""
    found = re.search(r"(?:^|\.)(model\.\d+\..+)$", name.replace("_orig_mod.", ""))
    return found.group(1) if found else name


def convert_name(name: str) -> tuple[str, ...]:
    """Return the name of a tensor in ``YOLOv8``; two where its rows are split in halves.

    Raises:
        ValueError: it is not the name of a tensor of a YOLOv8 detector.

    >>> convert_name("model.0.bn.bias"), len(convert_name("model.2.cv1.conv.weight"))
    (('backbone.p1.norm.bias',), 2)
    """
    found = re.fullmatch(r"model\.(\d+)\.(.+)", strip_wrappers(name))
    if not found:
        raise ValueError(f"{name} is not a tensor of an Ultralytics YOLOv8 detector")
    index, rest = int(found.group(1)), found.group(2)
    if index in PLAIN:
        return (f"{PLAIN[index]}.{_conv(name, rest)}",)
    if index in CSP_BLOCKS:
        return _csp(name, CSP_BLOCKS[index], rest)
    if index == SPP:
        return (f"backbone.p5.spp.{_numbered(name, rest)}",)
    if index == HEAD:
        return (_head(name, rest),)
    raise ValueError(f"{name}: layer {index} has no tensors in a YOLOv8 detector")


def _parts(name: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    # Exported files store the counter as (1,) and the DFL bins as a 1x1 convolution.
    if name.endswith(_INTEGER_SCALAR):
        return tuple(tensor.reshape(()).clone() for _ in range(count))
    if name.endswith(_BINS):
        return (tensor.reshape(-1),)
    if count == 1:
        return (tensor,)
    if tensor.ndim == 0 or tensor.shape[0] % 2:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)} cannot be split in halves")
    return tuple(half.clone() for half in tensor.chunk(2))


def _csp(name: str, block: str, rest: str) -> tuple[str, ...]:
    bottleneck = re.fullmatch(r"m\.(\d+)\.(.+)", rest)
    if bottleneck:
        inner = _numbered(name, bottleneck.group(2))
        return (f"{block}.bottlenecks.{bottleneck.group(1)}.{inner}",)
    if rest.startswith("cv2."):
        return (f"{block}.conv3.{_conv(name, rest[4:])}",)
    if not rest.startswith("cv1."):
        raise ValueError(f"{name} is not a tensor of a CSP block")
    part = _conv(name, rest[4:])
    return f"{block}.conv1.{part}", f"{block}.conv2.{part}"


def _head(name: str, rest: str) -> str:
    if rest == _BINS:
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
