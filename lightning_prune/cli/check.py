"""Check a composed configuration before anything is built from it."""

import difflib
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.cli.annotations import describe, fits
from lightning_prune.cli.errors import ConfigError

# Groups that hold one object, and groups that hold a mapping of objects.
OBJECTS = ("data", "model", "trainer")
MAPPINGS = ("pruning", "callbacks", "logger")
ROOT_TYPES: dict[str, Any] = {
    "seed": int,
    "task": Literal["train", "test"],
    "ckpt_path": str | None,
    "monitor": str,
    "dense_epochs": int,
    "recovery_epochs": int,
    "output_dir": str,
}
ROOT_MINIMA = {"seed": 0, "dense_epochs": 0, "recovery_epochs": 0}
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Check values, keys and types of a whole configuration and return it resolved.

    Ranges are not checked here: they belong to the constructors, which run before training too.

    Args:
        cfg: the composed configuration, without the `hydra` node.

    Raises:
        ConfigError: with one line for each key that is missing, unknown or of a wrong type.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise ConfigError("\n".join(f"{key} has no value: pass {key}=..." for key in missing))
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    if not isinstance(plain, dict):
        raise ConfigError("the root of the configuration is a list: a mapping is needed")
    root: dict[str, Any] = {str(key): value for key, value in plain.items()}
    problems = [*_root_problems(root), *_group_problems(root), *_node_problems(root, "")]
    if problems:
        raise ConfigError("\n".join(problems))
    return root


def unknown_key(path: str, owner: str, allowed: Iterable[str]) -> str:
    """Return the sentence for a key that `owner` does not know, near misses first."""
    prefix, _, key = path.rpartition(".")
    names = sorted(name for name in allowed if not name.startswith("_"))
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.6)
    full = [f"{prefix}.{name}" if prefix else name for name in near]
    hint = f" Did you mean {' or '.join(full)}?" if full else ""
    return f"{path} is not known to {owner}.{hint} Allowed: {', '.join(names)}"


def _root_problems(root: Mapping[str, Any]) -> Iterator[str]:
    for key, annotation in ROOT_TYPES.items():
        if key not in root:
            continue
        value = root[key]
        if not fits(value, annotation):
            yield f"{key}={value!r} is not allowed: give {describe(annotation)}"
        elif key in ROOT_MINIMA and value < ROOT_MINIMA[key]:
            yield f"{key}={value!r} is not allowed: give an integer of at least {ROOT_MINIMA[key]}"


def _group_problems(root: Mapping[str, Any]) -> Iterator[str]:
    for name in OBJECTS:
        node = root.get(name)
        if not (isinstance(node, dict) and "_target_" in node):
            yield f"{name}={node!r} is not an object: choose an option of the group '{name}'"
    for name in MAPPINGS:
        group = root.get(name)
        if group is None:
            continue
        if not isinstance(group, dict):
            yield f"{name}={group!r} is not a set of objects: choose an option of '{name}'"
            continue
        for key, node in group.items():
            if node is not None and not (isinstance(node, dict) and "_target_" in node):
                yield f"{name}.{key} has no _target_: name a class, or set {name}.{key}=null"


def _node_problems(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _node_problems(item, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _call_problems(node, path)
    for key, child in node.items():
        yield from _node_problems(child, f"{path}.{key}" if path else str(key))


def _call_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    try:
        target = hydra.utils.get_object(node["_target_"])
    except (InstantiationException, ImportError, ValueError) as error:
        yield f"{path}._target_={node['_target_']!r} cannot be imported: {_last_line(error)}"
        return
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some of Python's built-in types keep their signature to themselves
        return
    name = node["_target_"].rpartition(".")[2]
    yield from _value_problems(node, path, name, parameters, type_hints(target))
    if not node.get("_partial_", False):
        for key, parameter in parameters.items():
            if _is_required(parameter) and key not in node:
                yield f"{path}.{key} has no value: {name} needs it, pass +{path}.{key}=..."


def _value_problems(
    node: Mapping[str, Any],
    path: str,
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    hints: Mapping[str, Any],
) -> Iterator[str]:
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters:
            if not takes_any:
                allowed = [p.name for p in parameters.values() if p.kind is not p.VAR_POSITIONAL]
                yield unknown_key(f"{path}.{key}", name, allowed)
        elif key in hints and not fits(value, hints[key]):
            yield f"{path}.{key}={value!r} is not allowed: give {describe(hints[key])}"


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
        return typing.get_type_hints(function)
    except NameError:
        return {}


def _last_line(error: BaseException) -> str:
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
