"""Build objects from configuration nodes, and say plainly what a constructor refused."""

import re
from typing import Any

import hydra
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from lightning_prune.cli.errors import ConfigError

# What constructors raise about their arguments; anything else is a fault and keeps its traceback.
_REFUSALS = (ValueError, TypeError, ImportError, OSError, MisconfigurationException)


def build(node: DictConfig, path: str, **arguments: Any) -> Any:
    """Return the object that a node with `_target_` describes.

    Args:
        node: the configuration node; containers in it become plain lists and dicts.
        path: where the node stands, for messages ("pruning.masker").
        arguments: further arguments, passed on as they are.

    Raises:
        ConfigError: if a constructor refuses its arguments, naming the node and the reason.
    """
    try:
        constructor = hydra.utils.instantiate(node, _convert_="all", _partial_=True)
    except InstantiationException as error:
        place = re.search(r"full_key: (\S+)", str(error))
        raise _refusal(error.__cause__ or error, place[1] if place else path) from error
    try:
        return constructor(**arguments)
    except _REFUSALS as error:
        raise _refusal(error, path) from error


def build_all(group: DictConfig | None, path: str) -> dict[str, Any]:
    """Build every entry of a group of objects; an entry set to null is left out."""
    if group is None:
        return {}
    names = [str(key) for key, node in group.items() if node is not None]
    return {name: build(group[name], f"{path}.{name}") for name in names}


def _refusal(error: BaseException, path: str) -> BaseException:
    if not isinstance(error, (*_REFUSALS, InstantiationException)):
        return error
    return ConfigError(f"{path}: {str(error).strip()}")
