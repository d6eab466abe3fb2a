"""Compare configuration nodes with the signatures of what they build."""

import difflib
import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import hydra
from hydra.errors import InstantiationException

from lightning_prune.annotations import shown
from lightning_prune.cli.built_objects import builds
from lightning_prune.cli.unknown_key import unknown_key
from lightning_prune.extras import missing_extra
from lightning_prune.runs.configuration.renamed_keys import renamed_sentence
from lightning_prune.validation import Problem, problems

_HYDRA_TYPES: dict[str, Any] = {
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
}
# Classes that look at some of their arguments only when training has started, in somebody else.
_FORWARDED = {
    "lightning.pytorch.loggers.TensorBoardLogger": "torch.utils.tensorboard.SummaryWriter",
    "lightning.pytorch.loggers.WandbLogger": "wandb.init",
}
_HYDRA_KEYS = ("_target_", "_args_", *_HYDRA_TYPES)


def node_problems(node: Any, path: str = "") -> Iterator[Problem]:
    """Find what the classes named by `_target_` do not take: keys, types, missing arguments.

    Args:
        node: A resolved configuration, or a part of one.
        path: Where it stands.
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from node_problems(item, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _call_problems(node, path)
    for key, child in node.items():
        yield from node_problems(child, f"{path}.{key}" if path else str(key))


def target_of(node: Mapping[str, Any], path: str) -> tuple[Any, Problem | None]:
    """Import what a node builds, or say why it cannot be built."""
    name = node["_target_"]
    place, given = f"{path}._target_", f"{path}._target_={name!r}"
    if not (isinstance(name, str) and name):
        return None, Problem(place, f"{given}: pass the name of a class")
    try:
        target = hydra.utils.get_object(name)
    except (InstantiationException, ImportError, ValueError) as error:
        sentence = _missing(error, name)
        if sentence is not None:
            return None, Problem(place, sentence)
        return None, Problem(place, f"{given} cannot be imported: {_last_line(error)}")
    if not callable(target):
        text = f"{given} is a {type(target).__name__}: pass the name of a class"
        return None, Problem(place, text)
    return target, None


def _call_problems(node: Mapping[str, Any], path: str) -> Iterator[Problem]:
    target, problem = target_of(node, path)
    if problem is not None:
        yield problem
        return
    try:
        own = inspect.signature(target).parameters
    except ValueError:  # some of Python's built-in types keep their signature to themselves
        return
    parameters = _with_forwarded(node["_target_"], own)
    name = node["_target_"].rpartition(".")[2]
    yield from _value_problems(node, path, name, parameters, type_hints(target))
    if "_args_" in node:
        text = f"{path}._args_ is not allowed: name the arguments, {path}.KEY=..."
        yield Problem(f"{path}._args_", text)
    if not node.get("_partial_", False):
        for key, parameter in parameters.items():
            if _is_required(parameter) and key not in node:
                text = f"{path}.{key} has no value: {name} needs it, pass +{path}.{key}=..."
                yield Problem(f"{path}.{key}", text)


def _with_forwarded(
    name: str, parameters: Mapping[str, inspect.Parameter]
) -> Mapping[str, inspect.Parameter]:
    """Put in the place of `**kwargs` what they are passed on to, where that is known."""
    try:
        receiver = inspect.signature(hydra.utils.get_object(_FORWARDED[name])).parameters
    except (KeyError, InstantiationException, ImportError):
        return parameters
    named = {key: p for key, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    return {**{key: p for key, p in receiver.items() if p.kind is not p.VAR_POSITIONAL}, **named}


def _value_problems(
    node: Mapping[str, Any],
    path: str,
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    hints: Mapping[str, Any],
) -> Iterator[Problem]:
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = [p.name for p in parameters.values() if p.kind is not p.VAR_POSITIONAL]
    unknown = []
    for key, value in node.items():
        place = f"{path}.{key}"
        if key in _HYDRA_KEYS:
            yield from problems(_HYDRA_TYPES.get(key, Any), value, place)
        elif key not in parameters:
            renamed = renamed_sentence(place, node["_target_"], value)
            if renamed is not None:
                yield Problem(place, renamed)
            else:
                unknown += [] if takes_any else [key]
        elif found := list(problems(hints.get(key, Any), value, place, builds)):
            yield from found
        elif unusual := unusual_number(value):
            yield Problem(place, f"{place}={shown(value)}: pass {unusual}")
    yield from _unknown_problems(unknown, path, name, allowed)


def _unknown_problems(
    unknown: list[str], path: str, owner: str, allowed: list[str]
) -> Iterator[Problem]:
    """Name what an owner does not know: near misses each, of the rest what is allowed only once."""
    near = [key for key in unknown if difflib.get_close_matches(key, allowed, cutoff=0.6)]
    far = [key for key in unknown if key not in near]
    for key in near:
        yield Problem(f"{path}.{key}", unknown_key(f"{path}.{key}", owner, allowed))
    if far:
        more = f" (nor {', '.join(far[1:])})" if far[1:] else ""
        text = unknown_key(f"{path}.{far[0]}", f"{owner}{more}", allowed)
        yield Problem(f"{path}.{far[0]}", text)


def unusual_number(value: Any) -> str | None:
    """Return what to give instead of a number that no argument has a use for; None: usual.

    >>> unusual_number([0.5, float("nan")]), unusual_number(3)
    ('a finite number', None)
    """
    if isinstance(value, list):
        return next((found for item in value if (found := unusual_number(item))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number below 2^63"
    return None


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and parameter.kind not in variable


def type_hints(target: Any) -> dict[str, Any]:
    """Return the annotations of a class's constructor or of a function.

    Names that a foreign library imports for type checkers only cannot be resolved; such a target
    has no hints, and its constructor is left to judge the values.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        return {}


def _missing(error: BaseException, name: str) -> str | None:
    """Return which extra a class of this project lacks; None where that is not the reason."""
    package, _, rest = name.partition(".")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    if cause is None or package != "lightning_prune":
        return None
    return missing_extra(cause, name.rpartition(".")[2], rest.partition(".")[0])


def _last_line(error: BaseException) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
