"""Makes files as Ultralytics saves them: pickled modules of a package that is then gone."""

import sys
import types
from pathlib import Path

import torch
from torch import nn

PACKAGE = "foreign_yolo"


def _nest(module_class, state):
    """Build a tree of modules of a foreign class that holds a flat state dict."""
    root = module_class()
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, module_class())
            module = module._modules[part]
        if leaf.startswith("running") or leaf == "num_batches_tracked":
            module.register_buffer(leaf, value)
        else:
            parameter = nn.Parameter(value, requires_grad=value.is_floating_point())
            module.register_parameter(leaf, parameter)
    return root


def save_foreign(path: Path, models: dict, kind="DetectionModel", names=None, **content) -> Path:
    """Pickle state dicts as modules of a package that does not exist afterwards.

    Args:
        path: Where to write.
        models: Key of the checkpoint -> state dict, or None.
        kind: Class name of the model.
        names: Class names by index.
        content: Further entries of the checkpoint.
    """
    package = types.ModuleType(PACKAGE)
    part = type("Part", (nn.Module,), {"__module__": PACKAGE})
    model_class = type(kind, (part,), {"__module__": PACKAGE})
    arguments = type("Namespace", (), {"__module__": PACKAGE})
    package.Part, package.Namespace = part, arguments
    setattr(package, kind, model_class)
    sys.modules[PACKAGE] = package
    try:
        checkpoint = {"epoch": -1, "date": "2024-01-01", **content}
        for key, state in models.items():
            if state is not None:
                state = _nest(part, state)
                root = model_class()
                root.__dict__.update(state.__dict__)
                root.names, root.yaml, root.args = names, {"nc": 80}, arguments()
                state = root
            checkpoint[key] = state
        torch.save(checkpoint, path)
    finally:
        del sys.modules[PACKAGE]
    return path
