"""What arguments may be: ranges stand once, in signatures, and every reader checks by them.

A parameter or field says what it takes by its annotation, see ``annotations``. ``validated`` checks
the calls of a function, a constructor or a dataclass, ``read`` builds a dataclass from a mapping,
and ``problems`` judges a value before anything is called, such as a key of a YAML file. All report
every problem at once, each as "what was given: pass what is allowed, and what it means".
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_prune.annotations import LISTS, Builds, fits, is_content, shown, wanted

Target = TypeVar("Target", bound=Callable[..., Any])
Record = TypeVar("Record")


class Problem(NamedTuple):
    """What is wrong with one key.

    Attributes:
        path: Where the key stands ("pruning.masker.mac_target").
        text: The sentence for the user.
    """

    path: str
    text: str


def validated(target: Target) -> Target:
    """Check what a function, a constructor or a dataclass is called with, by its annotations.

    Lists become tuples where the annotation says so, and mappings become dataclasses.

    Raises:
        ValueError: at the call; one line for each argument that is not allowed.

    >>> from lightning_prune.annotations import AtLeast, Between
    >>> @validated
    ... def hold(epochs: Annotated[int, AtLeast(1)], ratio: Annotated[float, Between(0, 1)] = 0.5):
    ...     return epochs
    >>> hold(0, ratio=7)
    Traceback (most recent call last):
    ValueError: epochs=0: pass an integer of at least 1
    ratio=7: pass a number in [0, 1]
    """
    if isinstance(target, type):
        target.__init__ = validated(target.__init__)  # type: ignore[misc]
        return target
    signature = inspect.signature(target)

    @functools.wraps(target)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        check_arguments(target, given.arguments)
        hints = _hints(target)
        for name in given.arguments.keys() & hints.keys():
            given.arguments[name] = _converted(hints[name], given.arguments[name])
        return target(*given.args, **given.kwargs)

    return checked  # type: ignore[return-value]


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Compare values with the annotations that a function has for their names; others pass.

    For constructors whose arguments are completed first, such as those of LightningModules, in
    whose callers ``save_hyperparameters`` looks for arguments: a decorator would stand between.

    Raises:
        ValueError: one line for each value that is not allowed.
    """
    hints = _hints(function)
    found = [problems(hints[name], value, name) for name, value in values.items() if name in hints]
    refuse(chain.from_iterable(found))


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    several = {p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints = get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name not in several}


def read(kind: type[Record], content: Any, where: str) -> Record:
    """Build a dataclass from a mapping, such as a section of a file; every key must be known.

    Args:
        kind: The dataclass; its fields are the keys.
        content: What the file holds at this place; what is absent has its default.
        where: Name of the place, for messages.

    Raises:
        ValueError: one line for each unknown or missing key and each value that is not allowed, or
            what the dataclass itself refuses.

    >>> from lightning_prune.annotations import AtLeast
    >>> @dataclasses.dataclass(frozen=True)
    ... class Window:
    ...     first: Annotated[int, AtLeast(0)]
    ...     step: Annotated[int, AtLeast(1)] = 1
    >>> read(Window, {"first": 3}, "window")
    Window(first=3, step=1)
    >>> read(Window, {"first": -3, "steps": 2}, "window")
    Traceback (most recent call last):
    ValueError: window.steps is no known key: did you mean step?
    window.first=-3: pass an integer of at least 0
    """
    refuse(problems(kind, content, where))
    try:
        made: Record = _converted(kind, content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return made


def refuse(found: Iterable[Problem]) -> None:
    """Raise what was found, if anything.

    Raises:
        ValueError: one line for each problem.
    """
    if text := "\n".join(problem.text for problem in found):
        raise ValueError(text)


def problems(
    annotation: Any, value: Any, place: str, builds: Builds | None = None
) -> Iterator[Problem]:
    """Find what is wrong with a value: its kind, its range, and the keys of a dataclass in it.

    Args:
        annotation: What is allowed.
        value: What was given; a mapping passes for a dataclass.
        place: Name of the value, for the message.
        builds: What passes for an object of a class; by default such an object, or any other that
            is no plain value.
    """
    if not fits(annotation, value, builds):
        yield Problem(place, f"{place}={shown(value)}: pass {wanted(annotation)}")
        return
    for kind, content, inner in _records(annotation, value, place):
        yield from record_problems(kind, content, inner, builds)


def record_problems(
    kind: Any,
    content: Mapping[str, Any],
    place: str,
    builds: Builds | None = None,
    complete: bool = True,
) -> Iterator[Problem]:
    """Find the keys of a dataclass that are unknown, missing or hold what is not allowed.

    Args:
        kind: The dataclass.
        content: The mapping that is to become one.
        place: Where it stands.
        builds: As for ``problems``.
        complete: Whether keys without a default must be there.
    """
    fields, hints = dataclasses.fields(kind), get_type_hints(kind, include_extras=True)
    known = [field.name for field in fields]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
            yield Problem(f"{place}.{key}", f"{place}.{key} is no known key: {hint}")
    for field in fields:
        where = f"{place}.{field.name}"
        if field.name in content:
            yield from problems(hints[field.name], content[field.name], where, builds)
        elif complete and field.default is field.default_factory is dataclasses.MISSING:
            yield Problem(where, f"{where} is missing: pass {wanted(hints[field.name])}")


def _records(annotation: Any, value: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    """Find the dataclasses in an annotation whose content is given as a mapping."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if dataclasses.is_dataclass(annotation) and is_content(value):
        yield annotation, value, place
    elif origin is Annotated:
        yield from _records(arguments[0], value, place)
    elif origin in (Union, types.UnionType):
        for member in arguments:
            yield from _records(member, value, place)
    elif origin in LISTS and isinstance(value, list | tuple) and arguments:
        for index, item in enumerate(value):
            yield from _records(arguments[0], item, f"{place}[{index}]")


def _converted(annotation: Any, value: Any) -> Any:
    """Return a value as its annotation has it: a list as a tuple, a mapping as a dataclass."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _converted(arguments[0], value)
    if origin in (Union, types.UnionType):
        member = next((one for one in arguments if fits(one, value)), Any)
        return _converted(member, value)
    if dataclasses.is_dataclass(annotation) and is_content(value):
        hints = get_type_hints(annotation, include_extras=True)
        inner = {name: _converted(hints[name], part) for name, part in value.items()}
        return annotation(**inner)  # type: ignore[operator]
    if origin is tuple:
        parts = arguments if arguments[-1] is not Ellipsis else (arguments[0],) * len(value)
        return tuple(_converted(part, item) for part, item in zip(parts, value, strict=True))
    if origin is list and isinstance(value, list | tuple):
        return [_converted(arguments[0], item) for item in value]
    return value


def known_arguments(stage: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return further arguments of a stage, if it has them.

    Raises:
        TypeError: it does not.
    """
    allowed = list(inspect.signature(stage).parameters)
    for name in given:
        if name not in allowed:
            near = get_close_matches(name, allowed, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"{name}={given[name]!r} is an argument neither of the recipe nor of "
                f"{stage.__name__}.{hint} {stage.__name__} has {', '.join(allowed)}"
            )
    return dict(given)
