"""Build objects from configuration nodes, and say plainly what a constructor refused."""

import re
from collections.abc import Iterable
from typing import Any

import hydra
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from lightning_prune.cli.check import MAPPINGS, OBJECTS
from lightning_prune.errors import ConfigError

# What constructors raise about their arguments; anything else is a fault and keeps its traceback.
_REFUSALS = (ValueError, TypeError, ImportError, OSError, MisconfigurationException)


def build(node: DictConfig, path: str, **arguments: Any) -> Any:
    """Return the object that a node with `_target_` describes.

    Args:
        node: The configuration node; containers in it become plain lists and dicts.
        path: Where the node stands, for messages ("pruning.masker").
        arguments: Further arguments, passed on as they are.

    Raises:
        ConfigError: if a constructor refuses its arguments, naming the node and the reason, or
            what was built is of another kind than its place wants.
    """
    try:
        constructor = hydra.utils.instantiate(node, _convert_="all", _partial_=True)
    except (TypeError, ValueError) as error:  # of Hydra's own keys, such as _partial_
        raise _refusal(error, path) from error
    except InstantiationException as error:
        place = re.search(r"full_key: (\S+)", str(error))
        raise _refusal(error.__cause__ or error, place[1] if place else path) from error
    if path == "trainer":
        callbacks = arguments.get("callbacks", ())
        _check_states((type(callback).__name__, callback) for callback in callbacks)
    try:
        made = constructor(**arguments)
    except _REFUSALS as error:
        raise _refusal(error, path) from error
    group, _, rest = path.partition(".")
    kind = OBJECTS.get(path) or (None if not rest or "." in rest else MAPPINGS.get(group))
    if kind is not None and not isinstance(made, kind):
        raise ConfigError(
            f"{path}: {node._target_} gives a {type(made).__name__}, no {kind.__name__}"
        )
    return made


def build_all(group: DictConfig | None, path: str) -> dict[str, Any]:
    """Build every entry of a group of objects; an entry set to null is left out."""
    if group is None:
        return {}
    names = [str(key) for key, node in group.items() if node is not None]
    made = {name: build(group[name], f"{path}.{name}") for name in names}
    _check_states((f"{path}.{name}", one) for name, one in made.items())
    return made


def _check_states(callbacks: Iterable[tuple[str, Any]]) -> None:
    """Refuse callbacks whose states a checkpoint cannot tell apart, as Lightning does later."""
    seen: dict[str, str] = {}
    for place, callback in callbacks:
        if not isinstance(callback, Callback) or type(callback).state_dict is Callback.state_dict:
            continue
        if callback.state_key in seen:
            raise ConfigError(
                f"{seen[callback.state_key]} and {place} are alike, {callback.state_key}: a "
                "checkpoint could not tell their states apart; set one to null, or let them differ"
            )
        seen[callback.state_key] = place


def _refusal(error: BaseException, path: str) -> BaseException:
    if not isinstance(error, (*_REFUSALS, InstantiationException)):
        return error
    # Hydra says once more where it happened.
    return ConfigError(f"{path}: {str(error).partition('full_key:')[0].strip()}")
