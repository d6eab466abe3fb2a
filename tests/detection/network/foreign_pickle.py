"""Makes files as Ultralytics saves them: pickled modules of a package that is then gone."""

import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.detection.weights.other_models import KINDS

PACKAGE = "foreign_yolo"
_NUMBERED = re.compile(r"model\.(\d+)$")


class Classes:
    """Classes of a package that exists while a file is written."""

    def __init__(self) -> None:
        self.package = types.ModuleType(PACKAGE)

    def __call__(self, name: str, base: type = nn.Module) -> type:
        if not hasattr(self.package, name):
            setattr(self.package, name, type(name, (base,), {"__module__": PACKAGE}))
        found: type = getattr(self.package, name)
        return found


def _class_at(path: str, classes: Classes) -> type[nn.Module]:
    """Return the class of the module at a path of a detector."""
    index = _NUMBERED.match(path)
    if index and int(index[1]) < len(KINDS):
        return classes(KINDS[int(index[1])])
    last = path.rpartition(".")[2]
    if re.search(r"\.m\.\d+$", path):
        return classes("Bottleneck")
    if re.search(r"\.22\.cv[23]\.\d\.[01]$", path) or last in ("cv1", "cv2"):
        return classes("Conv")
    return classes("DFL" if last == "dfl" else "Part")


def _leaf(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the convolution or norm that holds some tensors."""
    layer: nn.Module
    if name.endswith(".bn"):
        layer = nn.BatchNorm2d(len(state["weight"]), eps=1e-3, momentum=0.03)
    else:
        out, into, side, _ = state["weight"].shape
        stride = 2 if re.fullmatch(r"model\.(0|1|3|5|7|16|19)\.conv", name) else 1
        layer = nn.Conv2d(into, out, side, stride, side // 2, bias="bias" in state)
    for key, value in state.items():
        if key in layer._buffers:
            layer._buffers[key] = value
        else:
            trained = value.is_floating_point()
            layer._parameters[key] = nn.Parameter(value, requires_grad=trained)
    return layer


def build_tree(state: Mapping[str, Tensor], classes: Classes, act: nn.Module) -> nn.Module:
    """Build the tree of modules that holds the state dict of a detector."""
    leaves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        path, _, key = name.rpartition(".")
        leaves.setdefault(path, {})[key] = value
    root = classes("Part")()
    for name, tensors in leaves.items():
        module, path = root, ""
        *above, last = name.split(".")
        for part in above:
            path = f"{path}.{part}".lstrip(".")
            if part not in module._modules:
                module.add_module(part, _class_at(path, classes)())
                if type(module._modules[part]).__name__ == "Conv":
                    module._modules[part].act = act
            module = module._modules[part]
        module.add_module(last, _leaf(name, tensors))
    layers = root._modules.get("model")
    if layers is not None:
        for index, kind in enumerate(KINDS[: 1 + max(map(int, layers._modules))]):
            if kind in ("Upsample", "Concat"):
                new = nn.Upsample(None, 2) if kind == "Upsample" else classes(kind)()
                layers.add_module(str(index), new)
        if "9" in layers._modules:
            layers._modules["9"].add_module("m", nn.MaxPool2d(5, 1, 2))
    return root


def save_foreign(
    path: Path,
    models: Mapping[str, Mapping[str, Tensor] | None],
    kind: str = "DetectionModel",
    names: Any = None,
    act: nn.Module | None = None,
    change: Any = None,
    **content: Any,
) -> Path:
    """Pickle state dicts as modules of a package that does not exist afterwards.

    All convolutions hold one activation object, as in real files.

    Args:
        path: Where to write.
        models: Key of the checkpoint -> state dict, or None.
        kind: Class name of the model.
        names: Class names by index.
        act: The activation; None: SiLU.
        change: Called with each model before it is written.
        content: Further entries of the checkpoint.
    """
    classes = Classes()
    sys.modules[PACKAGE] = classes.package
    try:
        checkpoint: dict[str, Any] = {"epoch": -1, "date": "2024-01-01", **content}
        for key, state in models.items():
            checkpoint[key] = None
            if state is not None:
                tree = build_tree(state, classes, act or nn.SiLU())
                root = classes(kind, classes("Part"))()
                root.__dict__.update(tree.__dict__)
                root.names, root.yaml = names, {"nc": 80}
                root.args = classes("Namespace", object)()
                if change is not None:
                    change(root)
                checkpoint[key] = root
        torch.save(checkpoint, path)
    finally:
        del sys.modules[PACKAGE]
    return path
