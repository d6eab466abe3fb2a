"""A copy of a module for comparisons, whatever hangs on the module besides its weights."""

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

_ATOMIC = {type(None), bool, int, float, str}
_CONTAINERS = {dict, OrderedDict, set}
_OWN = ("_parameters", "_buffers", "_modules")


def copy_module(module: nn.Module) -> nn.Module:
    """Return a deep copy of a module, also where something on it cannot be copied.

    Hooks that cannot be copied (a profiler's hold records of the running pass) do nothing in the
    copy; tensors that carry a graph are copied without it; any other attribute that cannot be
    copied (a lock, an open file, a connection) is shared.

    Args:
        module: Any module; it stays as it is.

    >>> net = nn.Sequential(nn.Linear(2, 1))
    >>> net.last = net[0].weight * 2  # carries a graph: copy.deepcopy refuses it
    >>> twin = copy_module(net)
    >>> twin.last.equal(net.last), twin[0].weight is net[0].weight
    (True, False)
    """
    try:
        return copy.deepcopy(module, _plain_parts(module))
    except Exception:  # whatever __deepcopy__ and __reduce_ex__ of foreign classes raise
        return copy.deepcopy(module, _Proxies(module).memo)


def _plain_parts(module: nn.Module) -> dict[int, Any]:
    """Return the memo of a deep copy in which the parts without a way of their own have copies.

    Each part has dozens of numbers and of dicts for hooks that are empty: to look at those one by
    one, as ``copy.deepcopy`` does, costs more than the weights do.
    """
    kinds = set(filter(_is_plain, {type(part) for part in module.modules()}))
    plain = [part for part in module.modules() if type(part) in kinds]
    memo: dict[int, Any] = {id(part): type(part).__new__(type(part)) for part in plain}
    for part in plain:
        memo[id(part)].__setstate__({k: _copied(v, memo) for k, v in part.__getstate__().items()})
    return memo


def _is_plain(kind: type[nn.Module]) -> bool:
    """Return whether modules of a class are copied attribute by attribute."""
    ways = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__")
    return (
        all(getattr(kind, way) is getattr(nn.Module, way) for way in ways)
        and not any(hasattr(kind, way) for way in ("__deepcopy__", "__getnewargs_ex__"))
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if kind in _CONTAINERS and not value and id(value) not in memo:
        memo[id(value)] = kind()
    return copy.deepcopy(value, memo)


class _Proxies:
    """What takes the place of the things on a module that cannot be copied."""

    def __init__(self, module: nn.Module) -> None:
        self.memo: dict[int, Any] = {}
        # Trials end at the module's own parts: those are copied together, afterwards.
        self._known: dict[int, Any] = {id(part): part for part in module.modules()}
        for part in module.modules():
            # Not vars: a LightningModule leaves its Trainer out of its state.
            for name, value in part.__getstate__().items():
                if name.endswith("_hooks") and isinstance(value, dict):
                    for hook in value.values():
                        if not self._copies(hook):
                            self.memo[id(hook)] = _no_hook
                elif name not in _OWN:
                    self._add(value)

    def _copies(self, value: Any) -> bool:
        try:
            copy.deepcopy(value, dict(self._known))
        except Exception:
            return False
        return True

    def _add(self, value: Any) -> None:
        if self._copies(value):
            return
        if isinstance(value, Tensor):
            self.memo[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            for part in [*value, *value.values()]:
                self._add(part)
        elif isinstance(value, list | tuple | set):
            for part in value:
                self._add(part)
        else:
            self.memo[id(value)] = value


def _no_hook(*_: Any, **__: Any) -> None:
    """Replace a hook that cannot be copied: change nothing."""
