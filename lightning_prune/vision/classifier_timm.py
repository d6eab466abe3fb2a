"""Builds the networks of timm, which is imported nowhere else."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_NAMED = 4


def require_timm() -> Any:
    """Import timm.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        if error.name not in ("timm", None):
            raise ImportError(
                f"timm is installed, and what it needs is not ({error}): "
                "pip install 'lightning_prune[timm]'"
            ) from error
        raise ImportError(
            "classifiers by name need timm: pip install 'lightning_prune[timm]'"
        ) from error


def check_name(name: str) -> None:
    """Check that timm has a network of this name, such as ``convnext_tiny.fb_in1k``.

    Raises:
        ImportError: timm is not installed.
        ValueError: it has none; the message names some that are close.
    """
    timm = require_timm()
    known = timm.list_models()
    bare, _, tag = name.partition(".")
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=4, cutoff=0.5)
        near += [each for each in known if bare and bare in each and each not in near][
            : 4 - len(near)
        ]
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has the names"
        raise ValueError(f"name={name!r} is no network of timm {timm.__version__}: {hint}")
    tagged = timm.list_pretrained(f"{bare}.*") if tag else []
    if tag and name not in tagged:
        hint = ", ".join(tagged[:6]) or f"none of {bare}"
        raise ValueError(f"name={name!r}: timm {timm.__version__} has no such weights, but {hint}")


def build_network(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    weights_classes: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build a network of timm.

    Args:
        name: Its name.
        num_classes: Classes of its head.
        in_channels: Channels of an image.
        image_size: Side of the images; None: its own.
        arguments: Further ones of ``timm.create_model``.
        weights: Tensors by timm's names, which timm fits to other image sizes and channels.
        weights_classes: Classes that these have; a head of another number starts fresh.
        pretrained: Fetch the published weights.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm cannot build it so, or the weights do not fit.
    """
    timm = require_timm()
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    cfg = timm.models.get_pretrained_cfg(name)
    if image_size is not None and cfg is not None and cfg.fixed_input_size:
        options["img_size"] = image_size
    if weights is not None:
        # A file without a head has one of no class as far as timm need know.
        options["pretrained_cfg_overlay"] = {
            "state_dict": dict(weights), "num_classes": weights_classes or 0, "label_offset": 0,
            "custom_load": False,
        }  # fmt: skip
    fetched = weights is not None or pretrained
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=fetched, **options, **(arguments or {})
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError, OSError) as error:
        if pretrained:
            raise ValueError(
                f"pretrained=true: no weights of {name} came ({_reason(error)}); without a "
                "network, fetch the file elsewhere (the model's page on huggingface.co/timm has "
                "model.safetensors) and pass weights=PATH"
            ) from error
        raise ValueError(f"timm cannot build {name}: {_reason(error)}") from error
    return network


def published_classes(name: str) -> int | None:
    """Return how many classes the published weights of a network have."""
    cfg = require_timm().models.get_pretrained_cfg(name)
    return None if cfg is None else int(cfg.num_classes)


def head_names(name: str) -> tuple[str, ...]:
    """Return the names of the layers that give the logits."""
    cfg = require_timm().models.get_pretrained_cfg(name)
    found = None if cfg is None else cfg.classifier
    return (found,) if isinstance(found, str) else tuple(found or ())


def data_settings(network: nn.Module) -> dict[str, Any]:
    """Return what timm says about a network's images, as plain values.

    Returns:
        ``image_size``, ``crop_fraction``, ``interpolation``, ``squash``, ``mean`` and ``std``.
    """
    config = require_timm().data.resolve_model_data_config(network)
    mode = config["interpolation"]
    return {
        "image_size": int(config["input_size"][-1]),
        "crop_fraction": float(config["crop_pct"]),
        "interpolation": mode if mode in _INTERPOLATIONS else "bicubic",
        "squash": config["crop_mode"] == "squash",
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
    }


def check_logits(network: nn.Module, example: Tensor, num_classes: int) -> None:
    """Check with one image that a network gives logits (1, K); nothing of it changes.

    Raises:
        ValueError: it cannot take such images, or gives something else.
    """
    training = network.training
    try:
        with torch.no_grad():
            found = network.eval()(example)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"the network takes no images of {tuple(example.shape[1:])}: {_reason(error)}; pass "
            "another image_size"
        ) from error
    finally:
        network.train(training)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != (1, num_classes):
        raise ValueError(f"the network gives {shape} for one image, not logits (1, {num_classes})")


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = lines[1:]
    return lines[0][:300] if lines else type(error).__name__
