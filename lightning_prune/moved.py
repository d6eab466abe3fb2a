"""Modules under the names that they had before: scripts and the folders of old runs name them."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "lightning_prune"
MOVED = {
    "callbacks.exact_resume": "runs.resume.exact_resume",
    "callbacks.stop_on_signal": "runs.stop_on_signal",
    "cli.config_folder": "runs.configuration.config_folder",
    "cli.csv_logger": "runs.csv_logger",
    "cli.sweep_callback": "runs.sweep.sweep_callback",
    "data.coco_json": "detection.data.coco_json",
    "data.digits": "detection.data.digits",
    "data.neural_sessions": "neural.data.sessions",
    "data.simulated_cells": "neural.data.simulated_cells",
    "data.yolo_folder": "detection.data.yolo_folder",
    "models.yolov8.csp_reset": "detection.network.csp_reset",
    "models.yolov8.network": "detection.network.network",
    "models.yolov8.weights": "detection.weights.read_weights",
    "detection.data.image_facts": "data.image_facts",
    "detection.data.images": "data.images",
    "graph.layers": "graph.layer_kinds",
    "modules.detection": "detection.module",
    "modules.neural_response": "neural.module",
    "plugins.atomic_checkpoint_io": "runs.checkpoint.atomic_checkpoint_io",
    "predict.detections": "detection.predict.detections",
    "pruners.bn_scale": "policies.criteria.bn_scale",
    "pruners.bn_scale_penalty": "policies.penalties.bn_scale_penalty",
    "pruners.clusterer": "policies.selection.clusterer",
    "pruners.fast_widths": "policies.selection.fast_widths",
    "pruners.fisher": "policies.criteria.fisher",
    "pruners.fpgm": "policies.criteria.fpgm",
    "pruners.group_norm": "policies.criteria.group_norm",
    "pruners.group_norm_penalty": "policies.penalties.group_norm_penalty",
    "pruners.lamp": "policies.criteria.lamp",
    "pruners.mac_aware": "policies.criteria.mac_aware",
    "pruners.magnitude": "policies.criteria.magnitude",
    "pruners.random_choice": "policies.criteria.random_choice",
    "pruners.separability": "policies.criteria.separability",
    "pruners.taylor": "policies.criteria.taylor",
}
_FOLDERS = {name.rpartition(".")[0] for name in MOVED} | {"models"}


class MovedModules:
    """Find modules under their earlier names, after everybody else has looked.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     from lightning_prune.pruners.fisher import Fisher
    >>> Fisher.__module__
    'lightning_prune.policies.criteria.fisher'
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what an earlier name stands for; None: the name is none."""
        package, _, name = fullname.partition(".")
        if package != _PACKAGE or not (name in MOVED or name in _FOLDERS):
            return None
        return ModuleSpec(fullname, self, is_package=name in _FOLDERS)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: an ordinary module is made."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module with the names of the one that took its place."""
        name = module.__name__.partition(".")[2]
        if name not in MOVED:
            return
        home = f"{_PACKAGE}.{MOVED[name]}"
        # Not DeprecationWarning: it comes from the configuration of a run as often as from code.
        warnings.warn(f"{module.__name__} is {home} now", FutureWarning, stacklevel=2)

        def __getattr__(attribute: str) -> Any:
            return getattr(importlib.import_module(home), attribute)

        module.__getattr__ = __getattr__  # type: ignore[method-assign]


def current_name(name: str) -> str:
    """Return the full name that something in the package has now.

    >>> current_name("lightning_prune.pruners.fisher.Fisher")
    'lightning_prune.policies.criteria.fisher.Fisher'
    >>> current_name("torch.nn.Linear")
    'torch.nn.Linear'
    """
    module, _, attribute = name.removeprefix(f"{_PACKAGE}.").rpartition(".")
    ours = name.startswith(f"{_PACKAGE}.") and module in MOVED
    return f"{_PACKAGE}.{MOVED[module]}.{attribute}" if ours else name


def install() -> None:
    """Register the finder of earlier names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
