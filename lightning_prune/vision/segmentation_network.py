"""Build a network of segmentation_models_pytorch by name."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import nn

_OURS = {
    "encoder_name": "encoder",
    "classes": "num_classes",
    "in_channels": "in_channels",
    "encoder_weights": "weights",
    "activation": None,
    "aux_params": None,
}
"""Arguments of theirs that have another name here, or that other outputs would follow."""


def load_library() -> ModuleType:
    """Import segmentation_models_pytorch.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ImportError(
            f"segmentation networks need segmentation_models_pytorch ({error}): "
            "pip install 'lightning_prune[segmentation]'"
        ) from error
    found: ModuleType = segmentation_models_pytorch
    return found


def build_network(
    name: str,
    encoder: str,
    num_classes: int,
    in_channels: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a network with a random start, which gives logits (B, K, H, W) for images (B, C, H, W).

    Args:
        name: Such as Unet; see ``segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING``.
        encoder: Such as resnet18; ``tu-NAME`` is an encoder of timm.
        num_classes: K.
        in_channels: C.
        options: Further arguments of the network's class by name, such as ``encoder_depth``.

    Raises:
        ImportError: the package is not installed.
        ValueError: a name is not known to it, or it refuses an option.
    """
    kind = _architecture(name)
    _check_encoder(encoder)
    _check_options(kind, options or {})
    sizes = {"in_channels": in_channels, "classes": num_classes}
    try:
        made: nn.Module = kind(
            encoder_name=encoder, encoder_weights=None, **sizes, **(options or {})
        )
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, IndexError) as error:
        given = "".join(f", {key}={value!r}" for key, value in (options or {}).items())
        raise ValueError(
            f"segmentation_models_pytorch refuses {name} with encoder={encoder}{given}: {error}"
        ) from error
    return made


def check_size(network: nn.Module, name: str, channels: int, size: int) -> None:
    """Try a network on one empty image.

    Raises:
        ValueError: it takes no square images of this size, or gives maps of another size.
    """
    stride = int(getattr(getattr(network, "encoder", None), "output_stride", 1))
    if size % stride and getattr(network, "requires_divisible_input_shape", True):
        below, above = size // stride * stride, -(-size // stride) * stride
        near = f"{above}" if below == 0 else f"{below} or {above}"
        raise ValueError(
            f"image_size={size}: this {name} takes multiples of {stride}, such as {near} "
            "(data.image_size on the command line)"
        )
    training = network.training
    try:
        with torch.no_grad():
            out = network.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{name} cannot take images of {size} x {size} pixels: {str(error).splitlines()[0]}"
        ) from error
    finally:
        network.train(training)
    if out.shape[-2:] != (size, size):
        raise ValueError(
            f"{name} gives maps of {tuple(out.shape[-2:])} for images of {size} x {size} pixels: "
            "set options.upsampling so that they are of one size"
        )


def _architecture(name: str) -> type[nn.Module]:
    known = {kind.__name__: kind for kind in load_library().MODEL_ARCHITECTURES_MAPPING.values()}
    if name not in known:
        raise ValueError(_unknown("name", name, known))
    found: type[nn.Module] = known[name]
    return found


def _check_encoder(encoder: str) -> None:
    known = load_library().encoders.get_encoder_names()
    if encoder in known:
        return
    if not encoder.startswith("tu-"):
        more = "; tu-NAME is an encoder of timm, such as tu-convnext_tiny"
        raise ValueError(_unknown("encoder", encoder, known, more))
    import timm  # comes with the package

    theirs = timm.list_models()
    if encoder.removeprefix("tu-").partition(".")[0] not in theirs:
        raise ValueError(_unknown("encoder", encoder, [f"tu-{each}" for each in theirs]))


def _unknown(key: str, given: str, known: Iterable[str], more: str = "") -> str:
    names = {each.lower(): each for each in known}
    near = [names[each] for each in get_close_matches(given.lower(), names, n=3, cutoff=0.5)]
    first = sorted(names.values(), key=str.lower)
    shown = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(first[:20])}"
    rest = f" and {len(first) - 20} more" if not near and len(first) > 20 else ""
    return f"{key}={given!r} is not known to segmentation_models_pytorch: {shown}{rest}{more}"


def _check_options(kind: type[nn.Module], options: Mapping[str, Any]) -> None:
    own = inspect.signature(kind.__init__).parameters
    known = [key for key, each in own.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    known = [key for key in known if key != "self" and key not in _OURS]
    for key in options:
        if _OURS.get(key):
            raise ValueError(f"options.{key}: pass {_OURS[key]} beside options, not in it")
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
            raise ValueError(f"options.{key} is no option of {kind.__name__}: {hint}")
