"""Put values that came from files into a configuration, where they stay plain values."""

from typing import Any

from omegaconf import DictConfig

from lightning_prune.errors import ConfigError


def set_plain(node: DictConfig, key: str, value: Any) -> None:
    """Set a key to a value that a data set or a checkpoint names.

    Text in it stays text: a class called `${oc.env:HOME}` is no reference, and nothing is built.

    Args:
        node: Part of the configuration.
        key: One of its keys.
        value: Numbers, text, lists and dicts.

    Raises:
        ConfigError: it describes an object (`_target_`).

    >>> node = DictConfig({"names": None})
    >>> set_plain(node, "names", ["cat", "${oc.env:HOME}"])
    >>> list(node.names)
    ['cat', '${oc.env:HOME}']
    """
    node[key] = _plain(value, key)


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, dict):
        if "_target_" in value:
            raise ConfigError(
                f"{place}, read from a file, describes an object (_target_={value['_target_']!r}): "
                "files may hold plain values only"
            )
        return {name: _plain(entry, f"{place}.{name}") for name, entry in value.items()}
    return value
