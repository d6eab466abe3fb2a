"""Find the full path of a key that was typed in another way."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

_MOST = 3
_DEPTH = 12  # nested deeper is nothing that a person types
# What other tools call it.
_ELSEWHERE = {
    "imgsz": "image_size",
    "batch": "batch_size",
    "device": "devices",
    "gpus": "devices",
    "workers": "num_workers",
    "lr0": "lr",
    "learning_rate": "lr",
    "epochs": "dense_epochs",
    "checkpoint": "ckpt_path",
}


def near_keys(typed: str, paths: Iterable[str]) -> list[str]:
    """Return the keys that may be meant, the likeliest first, at most three.

    A key without its beginning is found by its end; capitals, dashes for underscores and small
    misspellings count little.

    Args:
        typed: What was typed, without a value ("mac_target", "--Mac-Target", "masker.mac_targt").
        paths: The full paths of all keys.

    Example:
        >>> near_keys("Mac-Target", ["seed", "pruning.masker.mac_target"])
        ['pruning.masker.mac_target']
        >>> near_keys("pruning.mac_target", ["pruning.masker.mac_target", "pruning.masker"])
        ['pruning.masker.mac_target']
    """
    wanted = _plain(typed)
    if not wanted[-1]:
        return []
    paths = list(paths)
    if wanted[-1] in _ELSEWHERE and not any(_plain(path)[-1] == wanted[-1] for path in paths):
        wanted[-1] = _ELSEWHERE[wanted[-1]]
    scored = [(_score(wanted, _plain(path)), path) for path in dict.fromkeys(paths)]
    best = max((score for score, _ in scored), default=0.0)
    # A key that has the very name leaves no room for guesses.
    least = max(0.75, 1.0 if best >= 1 else best - 0.1)
    kept = [(score, path) for score, path in scored if score >= least]
    kept.sort(key=lambda one: (-one[0], one[1].count("."), one[1]))
    return [path for _, path in kept[:_MOST]]


def key_paths(tree: Any, path: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Yield the path of every key of nested dicts, and those of their children.

    >>> list(key_paths({"a": {"b": 1}, "c": [2]}))
    ['a', 'a.b', 'c']
    """
    if not isinstance(tree, dict) or depth <= 0:
        return
    for key, value in tree.items():
        inner = f"{path}.{key}" if path else str(key)
        yield inner
        yield from key_paths(value, inner, depth - 1)


def _plain(key: str) -> list[str]:
    key = key.lstrip("-+~").replace("/", ".").replace("-", "_").lower()
    return key.split(".")


def _score(wanted: list[str], path: list[str]) -> float:
    """Return how near a path is: from 1 on it ends with the key that is wanted."""
    likeness = difflib.SequenceMatcher(None, wanted[-1], path[-1]).ratio()
    if likeness < 0.7:
        return 0.0
    before = wanted[:-1]
    # Of the words before it those count that stand before it in the path too.
    shared = sum(word in path[:-1] for word in before) / len(before) if before else 0.0
    whole = 0.2 if wanted == path else 0.0
    return likeness + 0.1 * shared + whole - (0.1 if before and not shared else 0.0)
