"""Arguments of stages that have another name now: one table, old -> new."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_prune.moved import current_name

_WORD = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<path>[\w.]+)\.(?P<key>\w+)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class RenamedKey:
    """One of them.

    Attributes:
        new: The name it has now.
        translate: Return the value of the new name that means what a value of the old one meant.
    """

    new: str
    translate: Callable[[Any], Any]

    def value_of(self, old: Any) -> Any:
        """Return what means the same; None: the old value had no meaning."""
        try:
            return None if old in (None, "") else self.translate(old)
        except (TypeError, ValueError):
            return None


def _most_removed(ratio: Any) -> list[float]:
    """Return the fractions of a layer's channels that stay, of the largest that goes.

    >>> _most_removed(0.9)
    [0.1, 1.0]
    """
    return [round(1.0 - float(ratio), 12), 1.0]


def _as_it_was(value: Any) -> Any:
    return value


# Class of the project -> its old argument -> the new one.
RENAMED: dict[str, dict[str, RenamedKey]] = {
    "ChannelMasker": {"max_pruning_ratio": RenamedKey("keep_range", _most_removed)},
    "FastWidths": {
        "moved": RenamedKey("memory_cost", _as_it_was),
        "reach": RenamedKey("max_shift", _as_it_was),
    },
}


def renamed_key(target: Any, key: str) -> RenamedKey | None:
    """Return what an argument of a class is called now; None: it was not renamed.

    Args:
        target: The class as `_target_` names it; earlier full paths count too.
        key: The argument.
    """
    name = str(target)
    return RENAMED.get(name.rpartition(".")[2], {}).get(key) if _is_ours(name) else None


def renamed_sentence(path: str, target: Any, value: Any = None) -> str | None:
    """Return the sentence that answers a renamed key; None: it was not renamed.

    Args:
        path: The whole key ("pruning.masker.max_pruning_ratio").
        target: The class that took it.
        value: What it was given, where that is known.

    Example:
        >>> masker = "lightning_prune.callbacks.channel_masker.ChannelMasker"
        >>> renamed_sentence("pruning.masker.max_pruning_ratio", masker, 0.8)
        'pruning.masker.max_pruning_ratio is pruning.masker.keep_range now: type
        pruning.masker.keep_range=[0.2,1.0]'
    """
    place, _, key = path.rpartition(".")
    renamed = renamed_key(target, key)
    if renamed is None:
        return None
    new, means = f"{place}.{renamed.new}", renamed.value_of(value)
    return f"{path} is {new} now: type {new}={'VALUE' if means is None else _typed(means)}"


def translated(node: Any) -> Any:
    """Return a configuration with the new names in the place of the old ones.

    >>> translated({"_target_": "lightning_prune.pruners.fast_widths.FastWidths", "moved": 1.0})
    {'_target_': 'lightning_prune.policies.selection.fast_widths.FastWidths', 'memory_cost': 1.0}
    """
    if isinstance(node, list):
        return [translated(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    found: dict[Any, Any] = {}
    for key, value in node.items():
        if key == "_target_" and isinstance(value, str):
            found[key] = current_name(value)
            continue
        renamed = renamed_key(node.get("_target_", ""), str(key))
        new = None if renamed is None else renamed.value_of(value)
        if renamed is None or new is None:
            found[key] = translated(value)
        elif renamed.new not in node:
            found[renamed.new] = new
    return found


def translated_words(words: list[str], config: Mapping[str, Any]) -> list[str]:
    """Return the overrides of an earlier run with the new names in the place of the old ones.

    Args:
        words: The overrides.
        config: The configuration that they made, which says whose keys they are.

    Example:
        >>> masker = {"_target_": "lightning_prune.callbacks.channel_masker.ChannelMasker"}
        >>> words = ["seed=1", "pruning.masker.max_pruning_ratio=0.75"]
        >>> translated_words(words, {"pruning": {"masker": masker}})
        ['seed=1', 'pruning.masker.keep_range=[0.25,1.0]']
    """
    return [_translated_word(word, config) for word in words]


def _translated_word(word: str, config: Mapping[str, Any]) -> str:
    match = _WORD.fullmatch(word)
    if match is None:
        return word
    node: Any = config
    for part in match["path"].split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    target = node.get("_target_", "") if isinstance(node, Mapping) else ""
    renamed = renamed_key(target, match["key"])
    new = None if renamed is None else renamed.value_of(match["value"])
    if renamed is None or new is None:
        return word
    return f"{match['sign'] or ''}{match['path']}.{renamed.new}={_typed(new)}"


def _typed(value: Any) -> str:
    return str(value).replace(" ", "")


def _is_ours(name: str) -> bool:
    return name.startswith("lightning_prune.")
