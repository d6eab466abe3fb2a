"""A pickled module as records: its children, its tensors, and the detector inside wrappers."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lightning_prune.files.inert_pickle import Record

_DEEPEST = 64
_WRAPPERS = ("model", "module", "_orig_mod")


def kind_of(module: Record) -> str:
    """Return the name of a module's class, without the packages."""
    return module.path.rpartition(".")[2]


def children_of(module: Record) -> dict[str, Record]:
    """Return the child modules by name; those that are None are left out.

    Raises:
        ValueError: something among them is no module.
    """
    found = module.attributes.get("_modules") or {}
    if not isinstance(found, dict):
        raise ValueError(f"the parts of a {kind_of(module)} are a {type(found).__name__}")
    for name, child in found.items():
        if not isinstance(name, str) or not (child is None or isinstance(child, Record)):
            raise ValueError(f"a part of a {kind_of(module)} is no module")
    return {name: child for name, child in found.items() if child is not None}


def child_at(module: Record, path: str) -> Record | None:
    """Return the module at a dotted path below another; None where there is none."""
    found: Record | None = module
    for name in path.split("."):
        found = None if found is None else children_of(found).get(name)
    return found


def own_tensors(module: Record) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module itself that belong to its state dict.

    Raises:
        ValueError: one of them is quantized.
    """
    state = module.attributes
    hidden = state.get("_non_persistent_buffers_set") or ()
    own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
    for value in own.values():
        if isinstance(value, Record) and "qtensor" in value.path:
            raise ValueError(
                f"the weights of a {kind_of(module)} are quantized: start from the file before that"
            )
    return {k: v for k, v in own.items() if isinstance(v, Tensor) and k not in hidden}


def unwrap(record: Record) -> Record:
    """Return the model inside of what it was saved in (`YOLO`, DDP, a compiled module)."""
    for _ in range(_DEEPEST):
        if any(name.isdigit() for name in children_of(child_at(record, "model") or record)):
            return record
        inner = [child for name, child in children_of(record).items() if name in _WRAPPERS]
        if not inner and isinstance(plain := record.attributes.get("model"), Record):
            inner = [plain]  # `YOLO` of 8.0 was no module
        if not inner:
            return record
        record = inner[0]
    raise ValueError("a model within a model, without end")


def module_tensors(model: Record) -> dict[str, Tensor]:
    """Return the state dict of a pickled module from the records of its parts.

    One object in several places is read where no tensor hangs on it: all convolutions of an
    Ultralytics model share their activation.

    Raises:
        ValueError: a part is no module, is inside of itself, or is in two places with its tensors.
    """
    with_tensors: dict[int, bool] = {}
    _mark(model, with_tensors, 0)
    tensors: dict[str, Tensor] = {}
    places: dict[int, str] = {}
    for prefix, module in _walk("", model, with_tensors):
        if id(module) in places:
            raise ValueError(
                f"{places[id(module)] or 'the model'} and {prefix} are one module with tensors: "
                "shared weights are not read"
            )
        places[id(module)] = prefix
        for name, value in own_tensors(module).items():
            if prefix + name in tensors:
                raise ValueError(f"two tensors are named {prefix + name}")
            tensors[prefix + name] = value
    if not tensors:
        raise ValueError(f"the {kind_of(model) or 'object'} in it has no tensors: not a model")
    return tensors


def _walk(
    prefix: str, module: Record, with_tensors: dict[int, bool]
) -> Iterator[tuple[str, Record]]:
    yield prefix, module
    for name, child in children_of(module).items():
        if with_tensors[id(child)]:
            yield from _walk(f"{prefix}{name}.", child, with_tensors)


def _mark(module: Record, known: dict[int, Any], depth: int) -> bool:
    """Record for every module below, each looked at once, whether a tensor is in it."""
    if id(module) in known:
        if known[id(module)] is None:
            raise ValueError(f"a {kind_of(module)} is inside of itself: the file was altered")
        return bool(known[id(module)])
    if depth > _DEEPEST:
        raise ValueError(f"its modules are nested more than {_DEEPEST} deep")
    known[id(module)] = None  # being looked at
    found = [_mark(child, known, depth + 1) for child in children_of(module).values()]
    known[id(module)] = bool(own_tensors(module)) or any(found)
    return bool(known[id(module)])
