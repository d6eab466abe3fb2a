"""An unpickler whose work is bounded by the bytes that it reads."""

import gc
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, ClassVar

from lightning_prune.files.pickle_scan import scan
from lightning_prune.files.plain_values import Keys
from lightning_prune.files.record import Record


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the garbage collector, which looks at a million new tuples again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class BoundedUnpickler(pickle._Unpickler):
    """Builds lists, dicts, sets and records; calls only functions of the package.

    No value is hashed, printed, iterated over or called of which it is not known what that takes.
    Pure Python on purpose: the memo is a dict, so that a hostile index cannot allocate gigabytes.
    Subclasses say in ``find_class`` what stands for a class or function: a function of the
    package, a subclass of ``Record``, or a value.

    Args:
        data: The pickle.
        budget: Opcodes that it may have.
        allowed: Opcodes that may appear; None allows all but the registry of extensions.

    Raises:
        ValueError: the stream is torn or too long.
    """

    stack: list[Any]
    memo: dict[int, Any]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes, budget: int, allowed: frozenset[int] | None = None):
        scan(data, budget, allowed)
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.keys = Keys()

    def load(self) -> Any:
        """Return what the pickle holds."""
        with no_collection():
            return super().load()

    def _call(self, function: Any, arguments: Any, options: Any = None) -> Any:
        """Call one of our own functions, or note the call of another."""
        if type(arguments) not in (tuple, list) or not isinstance(options or {}, dict):
            raise ValueError("a call without arguments")
        if isinstance(function, FunctionType | MethodType):
            return function(*arguments, **(options or {}))
        if isinstance(function, Record) or (
            isinstance(function, type) and issubclass(function, Record)
        ):
            return function(*arguments, *(options or {}).items())
        raise ValueError("a call of something that is no function")

    def _do_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _do_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _do_newobj_ex(self) -> None:
        options = self.stack.pop()
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments, options)

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        self.stack.append(self._call(kind, arguments))

    def _do_build(self) -> None:
        state = self.stack.pop()
        self._build(self.stack[-1], state)

    def _build(self, target: Any, state: Any) -> None:
        """Set the state of a record; anything else (``OrderedDict`` metadata) stays as it is."""
        if isinstance(target, Record):
            target.state = state

    def _set(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key without a value")
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Record):
            target.items += pairs
            return
        if not isinstance(target, dict):
            raise ValueError(f"a value set in a {type(target).__name__}")
        for key, value in pairs:
            self.keys.check(key)
            target[key] = value

    def _append(self, target: Any, items: list[Any], kind: type[Any]) -> None:
        if isinstance(target, Record):
            target.items += items
        elif type(target) is not kind:
            raise ValueError(f"a value added to a {type(target).__name__}")
        elif isinstance(target, set):
            target |= self.keys.make_set(items)
        else:
            target += items

    def _do_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def _do_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def _do_append(self) -> None:
        value = self.stack.pop()
        self._append(self.stack[-1], [value], list)

    def _do_appends(self) -> None:
        items = self.pop_mark()
        self._append(self.stack[-1], items, list)

    def _do_additems(self) -> None:
        items = self.pop_mark()
        self._append(self.stack[-1], items, set)

    def _do_dict(self) -> None:
        items = self.pop_mark()
        found: dict[Any, Any] = {}
        self._set(found, items)
        self.stack.append(found)

    def _do_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(self.keys.make_frozenset(items))

    def _do_put(self) -> None:
        index = int(self.readline()[:-1])
        if not 0 <= index < 2**32:  # larger ones can be chosen to have one hash
            raise ValueError("a value kept under an absurd number")
        self.memo[index] = self.stack[-1]

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _do_reduce,
        pickle.NEWOBJ[0]: _do_newobj,
        pickle.NEWOBJ_EX[0]: _do_newobj_ex,
        pickle.BUILD[0]: _do_build,
        pickle.SETITEM[0]: _do_setitem,
        pickle.SETITEMS[0]: _do_setitems,
        pickle.APPEND[0]: _do_append,
        pickle.APPENDS[0]: _do_appends,
        pickle.ADDITEMS[0]: _do_additems,
        pickle.DICT[0]: _do_dict,
        pickle.FROZENSET[0]: _do_frozenset,
        pickle.PUT[0]: _do_put,
    }
