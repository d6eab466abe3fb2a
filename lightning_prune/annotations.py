"""What an annotation allows: types, ranges and conditions; and the same in words.

mac_target: Annotated[float | None, Between(0, 1, "what remains of the MACs", ends="()")]
"""

import collections.abc
import dataclasses
import math
import numbers
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

Builds = Callable[[Any, Any], bool]
"""``(value, class) -> whether the value is, or will be, an object of the class``."""

LISTS = (
    list,
    tuple,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {
    None: ("null", "nulls"),
    type(None): ("null", "nulls"),
    bool: ("true or false", "true or false values"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
}
_MOST_SHOWN = 80


@dataclasses.dataclass(frozen=True)
class Between:
    """The range of a number, or of every number in a list.

    Attributes:
        low: Lowest number.
        high: Highest number; infinity itself is never allowed.
        meaning: What the number is, for the message.
        ends: "(" and ")" leave an end out, "[" and "]" allow it.
    """

    low: float
    high: float
    meaning: str = ""
    ends: str = "[]"

    def holds(self, value: float) -> bool:
        """Return whether a number is in the range."""
        above = value > self.low if self.ends[0] == "(" else value >= self.low
        return above and (value < self.high or (self.ends[1] == "]" and value == self.high))

    @property
    def words(self) -> str:
        """Return the range in words, to follow the kind of number."""
        if self.high == math.inf:
            return f"above {self.low:g}" if self.ends[0] == "(" else f"of at least {self.low:g}"
        return f"in {self.ends[0]}{_number(self.low)}, {_number(self.high)}{self.ends[1]}"


def AtLeast(low: float, meaning: str = "") -> Between:
    """Return the range of numbers from ``low`` on."""
    return Between(low, math.inf, meaning, "[)")


def Above(low: float, meaning: str = "") -> Between:
    """Return the range of numbers above ``low``."""
    return Between(low, math.inf, meaning, "()")


@dataclasses.dataclass(frozen=True)
class Such:
    """A condition on a whole value; None is not asked.

    Attributes:
        test: Returns whether a value of the annotated type is allowed.
        words: What to pass, in place of the words for the type.
        meaning: What the value is, for the message.
    """

    test: Callable[[Any], bool]
    words: str
    meaning: str = ""


def one_of(names: Iterable[str]) -> Such:
    """Return the condition that a text is one of some words that no ``Literal`` can list."""
    allowed = tuple(names)
    return Such(allowed.__contains__, _either(allowed))


def multiple_of(step: int, low: int, high: int) -> Such:
    """Return the condition that a whole number in [low, high] is divisible."""
    return Such(
        lambda value: low <= value <= high and value % step == 0,
        f"a multiple of {step} from {low} to {high}",
    )


def fits(annotation: Any, value: Any, builds: Builds | None = None) -> bool:
    """Return whether a value may stand where an annotation does; inside of dataclasses none looks.

    An integer passes for a float, but true and false pass for booleans only.

    >>> fits(float | None, 1), fits(int, True), fits(Annotated[float | None, Above(0)], 0)
    (True, False, False)
    """
    return _fits(annotation, value, builds or _is_object, ())


def _fits(annotation: Any, value: Any, builds: Builds, ranges: tuple[Between, ...]) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = (*ranges, *(rule for rule in arguments[1:] if isinstance(rule, Between)))
        return _fits(arguments[0], value, builds, inner) and all(
            value is None or _is_node(value) or rule.test(value)
            for rule in arguments[1:]
            if isinstance(rule, Such)
        )
    if annotation in (Any, object) or isinstance(annotation, TypeVar):
        return True
    if annotation in (None, type(None)):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(member, value, builds, ranges) for member in arguments)
    if origin is Literal:
        return any(value == item and type(value) is type(item) for item in arguments)
    if annotation in (int, float):
        kind = numbers.Integral if annotation is int else numbers.Real
        number = isinstance(value, kind) and not isinstance(value, bool)
        return number and all(rule.holds(value) for rule in ranges)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if (origin or annotation) is Iterable and not isinstance(value, collections.abc.Collection):
        # Looking into an iterator would use it up, and into a loader would load.
        return isinstance(value, Iterable)
    if (origin or annotation) in LISTS:
        return _is_list_of(value, arguments, builds, ranges)
    if (origin or annotation) in _MAPPINGS:
        return isinstance(value, Mapping)
    if dataclasses.is_dataclass(annotation) and is_content(value):
        return True
    return builds(value, annotation)


def _is_list_of(
    value: Any, arguments: tuple[Any, ...], builds: Builds, ranges: tuple[Between, ...]
) -> bool:
    if not isinstance(value, collections.abc.Collection) or isinstance(
        value, str | bytes | Mapping
    ):
        return False
    if not arguments:
        return True
    if len(arguments) == 1 or arguments[-1] is Ellipsis:
        return all(_fits(arguments[0], item, builds, ranges) for item in value)
    return len(value) == len(arguments) and all(
        _fits(part, item, builds, ranges) for part, item in zip(arguments, value, strict=True)
    )


def wanted(annotation: Any) -> str:
    """Return what to pass and what it means, in words that a user can act on.

    >>> wanted(Annotated[float | None, Between(0, 1, "a fraction of the MACs", "()")])
    'a number in (0, 1) or null, a fraction of the MACs'
    """
    found = [describe(annotation), *(rule.meaning for rule in _rules(annotation) if rule.meaning)]
    return ", ".join(found)


def describe(annotation: Any) -> str:
    """Return an annotation in words, without its meaning.

    >>> describe(float | None), describe(Literal["n", "s"]), describe(list[int])
    ('a number or null', "'n' or 's'", 'a list of integers')
    """
    return _described(annotation, (), 0)


def _described(annotation: Any, ranges: tuple[Between, ...], plural: int) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        own = [rule.words for rule in arguments[1:] if isinstance(rule, Such)]
        if own:
            none = type(None) in get_args(arguments[0])
            return " and ".join(own) + (" or null" if none else "")
        inner = (*ranges, *(rule for rule in arguments[1:] if isinstance(rule, Between)))
        return _described(arguments[0], inner, plural)
    if origin in (Union, types.UnionType):
        members = sorted(arguments, key=lambda member: member is type(None))
        return " or ".join(dict.fromkeys(_described(one, ranges, plural) for one in members))
    if origin is Literal:
        return _either(arguments)
    if (origin or annotation) in LISTS:
        items = [item for item in arguments if item not in (Ellipsis, Any)]
        count = f"{len(items)} " if len(items) > 1 else ""
        return f"a list of {count}{_described(items[0], ranges, 1)}" if items else "a list"
    if (origin or annotation) in _MAPPINGS or dataclasses.is_dataclass(annotation):
        return ("a mapping", "mappings")[plural]
    if annotation not in _WORDS:
        return f"a {getattr(annotation, '__name__', annotation)} (in YAML by _target_)"
    bounds = [rule.words for rule in ranges if annotation in (int, float)]
    return " ".join([_WORDS[annotation][plural], *bounds])


def _either(words: tuple[Any, ...]) -> str:
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}" if others else last


def shown(value: Any) -> str:
    """Return a value as messages show it: as in YAML and JSON, and not at any length."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _is_object(value: Any, kind: Any) -> bool:
    own = isinstance(kind, type) and not getattr(kind, "_is_protocol", False)
    if own and isinstance(value, kind):
        return True
    return value is not None and not isinstance(
        value, numbers.Number | str | list | tuple | Mapping
    )


def is_content(value: Any) -> bool:
    """Return whether a value holds the keys of a dataclass, and does not name a class to build."""
    made = dataclasses.is_dataclass(value)  # one that is a mapping itself
    return isinstance(value, Mapping) and not made and not _is_node(value)


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _rules(annotation: Any) -> Iterator[Between | Such]:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        yield from (rule for rule in arguments[1:] if isinstance(rule, Between | Such))
    if get_origin(annotation) is not Literal:
        for part in arguments:
            yield from _rules(part)
