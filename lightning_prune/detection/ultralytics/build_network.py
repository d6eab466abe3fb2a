"""Build a network of the installed package, and compare it with the pickled one of a file."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_prune.detection.network.activations import describe_activation, make_activation
from lightning_prune.detection.ultralytics.network_file import KINDS
from lightning_prune.detection.ultralytics.network_yaml import check_yaml, without_note
from lightning_prune.detection.ultralytics.package import quiet, their_module, version_of
from lightning_prune.detection.weights.module_tree import children_of, kind_of
from lightning_prune.files.inert_pickle import Record

_HEADS = {"RTDETRDecoder": "RTDETRDetectionModel", "Segment": "SegmentationModel"}
_DETECT = ("Detect", "v10Detect")
# What building and tracing leave behind, what a training sets, and what is no part of the result.
_FREE = {
    "training", "inplace", "i", "f", "type", "np", "shape", "dynamic", "export", "format",
    "anchors", "strides", "max_det", "agnostic_nms", "xyxy", "nc", "names", "task", "save",
    "end2end", "bias_init",
}  # fmt: skip


def network_yaml(name: str) -> tuple[str, dict[str, Any]]:
    """Return the kind and the YAML of a network that the package has by name, as ``yolo11n``.

    Raises:
        ValueError: it has none of this name, or of another task.
    """
    tasks = their_module("nn.tasks")
    file = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    try:
        yaml = without_note(tasks.yaml_model_load(file))
        head = str(yaml["head"][-1][2])
    except (FileNotFoundError, OSError, SyntaxError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"model.name={name!r}: ultralytics {version_of(their_module())} knows no such network; "
            "pass one such as yolo11n, yolov8s or yolov8n-seg, or the file of a YAML"
        ) from error
    kind = next((k for start, k in _HEADS.items() if head.startswith(start)), None)
    if kind is None and head in _DETECT:
        kind = "DetectionModel"
    if kind is None:
        raise ValueError(
            f"model.name={name!r} ends in {head}: only networks that detect or segment are pruned"
        )
    check_yaml(yaml)
    return kind, yaml


def build_network(
    kind: str,
    yaml: Mapping[str, Any],
    num_classes: int,
    channels: int,
    activations: Mapping[str, str] | None = None,
) -> nn.Module:
    """Build a network from scratch.

    Args:
        kind: Its class, one of ``KINDS``.
        yaml: What it consists of.
        num_classes: Number of classes.
        channels: Of an image.
        activations: Path of a module -> the activation it is, where the YAML says another.

    Raises:
        ValueError: the installed package cannot build it; the message says its version.
    """
    package = their_module()
    check_yaml(yaml)
    try:
        with _own_activation(), quiet():
            network: Any = getattr(their_module("nn.tasks"), kind)(
                copy.deepcopy(dict(yaml)), ch=channels, nc=num_classes, verbose=False
            )
        for path, text in (activations or {}).items():
            network.set_submodule(path, make_activation(text))
    except (KeyError, AttributeError, NameError, TypeError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"ultralytics {package.__version__} cannot build this {kind} ({reason}): install the "
            "version that it was written with"
        ) from error
    network.nc = num_classes  # as their trainers do; RT-DETR's loss reads it
    network.task = KINDS[kind]
    built: nn.Module = network
    return built


@contextmanager
def _own_activation() -> Iterator[None]:
    """Keep the activation that one YAML asks for from the networks that are built after it."""
    conv = their_module("nn.modules").Conv
    before = conv.default_act
    try:
        yield
    finally:
        conv.default_act = before


def set_halves(network: nn.Module, dense: nn.Module) -> None:
    """Set the width of the parts of a block, which only their exporters read.

    A forward pass halves the first convolution of a block as wide as it is (``chunk``), their
    exporters split it by the number ``c`` of the block.
    """
    originals = dict(dense.named_modules())
    for name, block in network.named_modules():
        width = _width(originals[name])
        parts = getattr(originals[name], "c", None)
        if width is not None and isinstance(parts, int) and parts > 0 and not width % parts:
            block.c = (_width(block) or width) // (width // parts)


def _width(block: nn.Module) -> int | None:
    conv = getattr(getattr(block, "cv1", None), "conv", None)
    return conv.out_channels if isinstance(conv, nn.Conv2d) else None


def compare(written: Record, built: nn.Module, version: str | None) -> dict[str, str]:
    """Compare what the modules of a file say with the network that was built.

    Shapes do not say how a network computes: one version of the package puts an activation where
    another has none.

    Returns:
        Path of a module -> the activation it is in the file, where another was built.

    Raises:
        ValueError: a module is of another class, or has another number or word.
    """
    activations: dict[str, str] = {}
    found = _difference(written, built, "", activations)
    if found is None:
        return activations
    wrote = f"ultralytics {version}" if version else "another version of ultralytics"
    raise ValueError(
        f"{found}: {wrote} wrote the file, {their_module().__version__} is installed and builds it "
        "otherwise; install the one that wrote it"
    )


def _difference(
    written: Record, built: nn.Module, place: str, activations: dict[str, str]
) -> str | None:
    where, kind = place or "the network", type(built)
    if kind_of(written) != kind.__name__ or place.endswith(".act"):
        theirs, own = (
            _activation(written.path, written.attributes),
            _activation(f"{kind.__module__}.{kind.__name__}", vars(built)),
        )
        if theirs is None or own is None:
            if kind_of(written) == kind.__name__:
                return None
            return f"{where} is a {kind_of(written)} in the file and a {kind.__name__} here"
        if theirs != own:
            activations[place] = theirs
        return None
    for name, value in written.attributes.items():
        if name.startswith("_") or name in _FREE or name not in vars(built):
            continue
        ours = vars(built)[name]
        if isinstance(value, bool | int | float | str) and _plain(value) != _plain(ours):
            return f"{where} has {name}={value} in the file and {name}={ours} here"
    parts = children_of(written)
    # Not named_children(), which leaves out the second place of a shared activation.
    here = {name: child for name, child in built._modules.items() if child is not None}
    if list(parts) != list(here):
        return f"{where} has the parts {', '.join(parts)} in the file, others here"
    for name, child in here.items():
        below = f"{place}.{name}" if place else name
        if found := _difference(parts[name], child, below, activations):
            return found
    return None


def _activation(path: str, attributes: Mapping[str, Any]) -> str | None:
    try:
        return describe_activation(path, attributes)
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Return a side for a pair of equal sides."""
    if isinstance(value, tuple | list) and len(set(map(str, value))) == 1:
        return value[0]
    return value
