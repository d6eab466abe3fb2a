"""Reads what ``torch.load(weights_only=True)`` would make, without asking it."""

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_prune.files import plain_values, stored_tensor
from lightning_prune.files.file_error import printable
from lightning_prune.files.inert_pickle import TENSORS, InertUnpickler
from lightning_prune.files.pickle_scan import TORCH_OPCODES
from lightning_prune.files.record import Record


class PlainUnpickler(InertUnpickler):
    """Accepts only what ``torch.load(weights_only=True)`` makes tensors and plain values of.

    Classes that the user declared with ``torch.serialization.add_safe_globals`` become records.
    """

    allowed: ClassVar[frozenset[int] | None] = TORCH_OPCODES

    def functions(self) -> dict[str, Any]:
        """Return what stands for the functions that are known, by full name."""
        known = {
            **super().functions(),
            "torch._utils._rebuild_parameter": stored_tensor.rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": stored_tensor.rebuild_parameter,
            "torch._tensor._rebuild_from_type_v2": _rebuild_exactly,
            "torch.nn.parameter.Parameter": stored_tensor.make_tensor,
        }
        del known["builtins.frozenset"], known["copyreg._reconstructor"]
        self._declared = _declared()
        return known

    def unknown(self, path: str) -> Any:
        """Return a record of a declared class.

        Raises:
            PickledObjectsError: it is not declared.
        """
        if path in self._declared:
            return super().unknown(path)
        name = printable(path.removeprefix("builtins."), 100)
        kind = "tensors of a kind that is not read" if ".Q" in name or "_rebuild" in name else ""
        way = ": Trainer(plugins=AtomicCheckpointIO()) stores configurations as plain values"
        raise PickledObjectsError(
            f"it holds {kind or 'pickled objects'} ({name}) beside tensors and plain values; "
            f"nothing was executed{way if name.startswith('omegaconf.') else ''}"
        )

    def _build(self, target: Any, state: Any) -> None:
        """Set the state of a record, or the attributes of an ``OrderedDict``, as torch does."""
        if isinstance(target, Record):
            target.state = state
            return
        known = type(target) is OrderedDict and isinstance(state, dict)
        if not known or not all(type(k) is str and not hasattr(target, k) for k in state):
            raise ValueError(f"a {type(target).__name__} that is given another state")
        _check_metadata(state.get("_metadata", {}))
        target.__dict__.update(state)


class PickledObjectsError(ValueError):
    """A file that holds objects of classes, not tensors and plain values only."""


def _declared() -> set[str]:
    found = set()
    for one in torch.serialization.get_safe_globals():
        function, name = one if isinstance(one, tuple) else (one, None)
        found.add(name or f"{function.__module__}.{function.__qualname__}")
    return found


def _check_metadata(metadata: Any) -> None:
    """Check what ``load_state_dict`` asks for versions."""
    layers: Any = metadata.values() if isinstance(metadata, dict) else (None,)
    for layer in layers:
        version = layer.get("version") if isinstance(layer, dict) else ""
        if version is not None and not plain_values.is_size(version):
            raise ValueError("the versions of layers are no numbers")
        if "assign_to_params_buffers" in layer:
            raise ValueError("it asks for types of other parameters than the module has")


def _rebuild_exactly(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    if not any(function is known for known in TENSORS.values()) or type(arguments) is not tuple:
        raise ValueError("a tensor that is made by an unknown function")
    if kind is not stored_tensor.make_tensor:
        raise ValueError("a tensor of an unknown class")
    stored_tensor.check_state(state)
    found: Tensor = function(*arguments)
    return found
