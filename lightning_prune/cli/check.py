"""Check a composed configuration before anything is built from it."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.annotations import AtLeast, Between, shown
from lightning_prune.cli.near_keys import key_paths, near_keys
from lightning_prune.cli.node_problems import node_problems, target_of, unusual_number
from lightning_prune.cli.problem import first_causes, value_at
from lightning_prune.cli.unknown_key import unknown_key
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.validation import Problem, problems

# Groups that hold one object, and groups that hold a mapping of objects; each with their kind.
OBJECTS: dict[str, type] = {
    "data": L.LightningDataModule,
    "model": L.LightningModule,
    "trainer": L.Trainer,
}
MAPPINGS: dict[str, type] = {"pruning": L.Callback, "callbacks": L.Callback, "logger": Logger}
ROOT_TYPES: dict[str, Any] = {
    "seed": Annotated[int, Between(0, 2**32 - 1)],
    "task": Literal["train", "test"],
    "ckpt_path": str | None,
    "resume": str | None,
    "monitor": str,
    "objectives": list[str] | None,
    "dense_epochs": Annotated[int, AtLeast(0)],
    "recovery_epochs": Annotated[int, AtLeast(0)],
    "share_dense": bool,
    "output_dir": str,
}
_OPTIONAL = ("resume", "objectives", "share_dense")
# Groups whose options are parts of a recipe or a data set: at the root nobody reads them.
_NO_ROOT_KEYS = {"defaults", "hydra", "stage", "penalty", "widths", "augmentation"}
# What makes a run train or test nothing: it would end with exit code 0 and no result.
_TRAINS_NOTHING = ("max_epochs", "max_steps", "limit_train_batches", "limit_test_batches")
# Numbers that Lightning divides by without a look at them.
_DIVISORS = ("check_val_every_n_epoch", "accumulate_grad_batches")
_MOST_DEVICES = 4096
# Lightning's own words for a checkpoint that it finds by itself.
_FOUND_BY_LIGHTNING = ("last", "best", "hpc")


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Check values, keys and types of a whole configuration and return it resolved.

    Types and ranges are those of the constructors' signatures; what several arguments must be
    together is judged when they run, before training too.

    Args:
        cfg: The composed configuration, without the `hydra` node.

    Raises:
        ConfigError: with one line for each key that is missing, unknown or of a wrong type
            or out of range.
    """
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise ConfigError("\n".join(f"{key} has no value: pass {key}=..." for key in missing))
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        # Arithmetic with a root key of a wrong type fails too: then that key is the matter.
        given = {key: raw[key] for key in ROOT_TYPES if "${" not in str(raw.get(key, "${"))}
        causes = [one.text for key, value in given.items() for one in _value_problems(key, value)]
        own = f"{error.full_key}: {_reference_message(error, raw)}"
        raise ConfigError("\n".join(causes) or own) from error
    if not isinstance(plain, dict):
        raise ConfigError("the root of the configuration is a list: a mapping is needed")
    root: dict[str, Any] = {str(key): value for key, value in plain.items()}
    found = [
        *_root_problems(root),
        *_unread_problems(root, str(raw)),
        *_group_problems(root),
        *_trainer_problems(root),
        *node_problems(root),
    ]
    if found:
        raise ConfigError("\n".join(problem.text for problem in first_causes(found, raw)))
    return root


def _reference_message(error: OmegaConfBaseException, raw: Any) -> str:
    """Return what OmegaConf says about a value or a reference, without its own class names."""
    text = str(error).splitlines()[0]
    found = re.search(r"trying to access (\S+): node `(\S+)` is not a container", text)
    if found:
        return f"it refers to {found[1]}, but {found[2]} holds nothing: set one or the other"
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    given = value_at(str(error.full_key), raw)
    return f"{text} (needed by {given})" if isinstance(given, str) else text


def _root_problems(root: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ROOT_TYPES:
        if key in root:
            yield from _value_problems(key, root[key])
        elif key not in _OPTIONAL:
            yield Problem(key, f"{key} has no value: pass +{key}=...")
    path = root.get("ckpt_path")
    is_path = isinstance(path, str) and "://" not in path and path not in _FOUND_BY_LIGHTNING
    if is_path and not Path(str(path)).is_file():
        yield Problem("ckpt_path", f"ckpt_path={path} is no file: give a checkpoint of a run")


def _value_problems(key: str, value: Any) -> Iterator[Problem]:
    found = list(problems(ROOT_TYPES[key], value, key))
    yield from found
    if not found and (unusual := unusual_number(value)):
        yield Problem(key, f"{key}={shown(value)}: pass {unusual}")


def _unread_problems(root: Mapping[str, Any], raw: str) -> Iterator[Problem]:
    """Find root keys that nobody reads: a misspelt `pruning` would train dense."""
    folder = config_folder()
    shipped = OmegaConf.load(folder / "train.yaml")
    groups = {path.name for path in folder.iterdir() if any(path.glob("*.yaml"))}
    known = {*map(str, shipped), *groups, *ROOT_TYPES, *OBJECTS, *MAPPINGS} - _NO_ROOT_KEYS
    for key, value in root.items():
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        read = key in known or re.search(rf"[{{,]{re.escape(key)}[}},.]", raw)
        if not read and (near or key in _NO_ROOT_KEYS or _holds_objects(value)):
            yield Problem(key, unknown_key(key, "the root of the configuration", known))


def _holds_objects(value: Any) -> bool:
    nodes = [value, *value.values()] if isinstance(value, dict) else []
    return any(isinstance(node, dict) and "_target_" in node for node in nodes)


def _group_problems(root: Mapping[str, Any]) -> Iterator[Problem]:
    for name, kind in OBJECTS.items():
        node = root.get(name)
        if isinstance(node, dict) and "_target_" in node:
            yield from _kind_problems(node, name, kind)
        else:
            given = f"{name}={node!r} is not an object"
            given = f"{name} has no _target_" if isinstance(node, dict) else given
            yield Problem(name, f"{given}: choose an option of the group '{name}'")
    for name, kind in MAPPINGS.items():
        group = root.get(name)
        if isinstance(group, dict):
            yield from _entry_problems(group, name, kind)
            yield from _double_problems(group, name)
        elif group is not None:
            text = f"{name}={group!r} is not a set of objects: choose an option of '{name}'"
            yield Problem(name, text)
        elif name not in root and name != "pruning":
            yield Problem(name, f"{name} is missing: choose an option, such as {name}=none")
    first, second = (root.get(name) for name in ("pruning", "callbacks"))
    if isinstance(first, dict) and isinstance(second, dict):
        # Both become one dict of callbacks: one of the two would be lost.
        for key in sorted(first.keys() & second.keys()):
            text = f"pruning.{key} and callbacks.{key} have one name: rename one of them"
            yield Problem(f"pruning.{key}", text)


def _entry_problems(group: Mapping[str, Any], name: str, kind: type) -> Iterator[Problem]:
    for key, node in group.items():
        path = f"{name}.{key}"
        if isinstance(node, dict) and "_target_" in node:
            yield from _kind_problems(node, path, kind)
        elif node is not None:
            near = [other for other in near_keys(path, key_paths({name: group})) if other != path]
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            text = f"{path} has no _target_{hint}: name a class, or set {path}=null"
            yield Problem(path, text)


def _double_problems(group: Mapping[str, Any], name: str) -> Iterator[Problem]:
    """Find entries that say the same: a second logger would write every row twice."""
    for (first, node), (second, other) in combinations(group.items(), 2):
        if isinstance(node, dict) and node == other:
            text = f"{name}.{first} and {name}.{second} are the same: set one to null"
            yield Problem(f"{name}.{second}", text)


def _kind_problems(node: Mapping[str, Any], path: str, kind: type) -> Iterator[Problem]:
    """Find classes of another kind; what a function returns is seen when it is built."""
    target, problem = target_of(node, path)
    if problem is None and inspect.isclass(target) and not issubclass(target, kind):
        text = f"{path}._target_={node['_target_']!r} is no {kind.__name__}: name one that is"
        yield Problem(f"{path}._target_", text)


def _trainer_problems(root: Mapping[str, Any]) -> Iterator[Problem]:
    trainer = root.get("trainer")
    if not (isinstance(trainer, dict) and trainer.get("_target_") == "lightning.pytorch.Trainer"):
        return
    if "max_epochs" not in trainer:
        text = "trainer.max_epochs is missing: pass ++trainer.max_epochs=null, or a number"
        yield Problem("trainer.max_epochs", text)
    for key in _TRAINS_NOTHING:
        value = trainer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
            what = "tests" if key == "limit_test_batches" else "trains"
            text = f"trainer.{key}={value} {what} nothing: leave it null, or give at least 1"
            yield Problem(f"trainer.{key}", text)
    for key in _DIVISORS:
        value = trainer.get(key)
        if isinstance(value, int):
            yield from problems(Annotated[int, AtLeast(1)], value, f"trainer.{key}")
    devices = trainer.get("devices")
    if isinstance(devices, int):
        yield from problems(Annotated[int, Between(-1, _MOST_DEVICES)], devices, "trainer.devices")
