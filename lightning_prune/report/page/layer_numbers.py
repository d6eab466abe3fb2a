"""The numbers behind each layer's width, small enough for a page."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_prune.report.stored_decision import StoredDecision

CLASSES = 30
"""Classes that are shown one by one; of more, those with the fewest objects are grouped."""
ROWS = 24
"""Channels whose separability is shown one by one: the strongest."""
_POINTS = 64


def layer_numbers(stored: StoredDecision, level: int = 0) -> dict[str, Any]:
    """Return what a page draws of a decision when its layer is opened.

    Bytes are base64: ``keep`` (C,) bits, ``norms`` (C,) as fractions of ``largest``/255,
    ``points`` (C, 2) over the span of each axis, ``owner`` (C,) which of the kept channels stays
    for each (two bytes where more than 256 are kept), ``pairs`` (K(K-1)/2,) mean separability of
    each pair of classes and ``rows`` (24, K) of each of the strongest channels against all other
    classes, 255 for 2.

    Args:
        stored: What was stored of it.
        level: 0: everything; 1: without single channels' rows; 2: without the embedding too.
    """
    facts, arrays = stored.facts, stored.arrays
    found: dict[str, Any] = {"channels": facts["channels"], "keep": _bits(facts)}
    strength = arrays.get("importance", arrays.get("norms"))
    if "norms" in arrays:
        largest = float(arrays["norms"].max())
        scaled = arrays["norms"] * (255 / largest) if largest > 0 else arrays["norms"]
        found |= {"norms": _bytes(scaled), "largest": largest}
    if facts["mss"]:
        curve = facts["mss"]
        step = -(-len(curve) // _POINTS)
        found |= {"mss": [[k, round(v, 4)] for k, v in curve[::step]], "knee": facts["knee"]}
    if facts["losses"]:
        found["losses"] = [[width, float(f"{loss:.3g}")] for width, loss in facts["losses"]]
    if "embedding" in arrays and level < 2:
        points = arrays["embedding"]
        points = points if points.shape[1] > 1 else np.pad(points, ((0, 0), (0, 1)))
        span = np.ptp(points, axis=0)
        scaled = (points - points.min(axis=0)) * (255 / np.where(span > 0, span, 1))
        found |= {"points": _bytes(scaled), "method": facts["method"]}
        found["owner"] = _owners(arrays["labels"], facts["keep"])
    separability = stored.separability
    if separability is not None and "count_0" in arrays:
        count = arrays["count_0"]
        square = _square(separability, len(count))
        names = _names(facts["classes"], len(count))
        square, names = _grouped(square, count, names)
        one, other = np.triu_indices(len(names), 1)
        found |= {"classes": names, "pairs": _bytes(square.mean(axis=0)[one, other] * (255 / 2))}
        if level < 1 and strength is not None:
            strongest = np.argsort(-strength, kind="stable")[:ROWS]
            means = square[strongest].sum(axis=2) / max(len(names) - 1, 1)
            found |= {"rows": _bytes(means * (255 / 2)), "strongest": strongest.tolist()}
    return found


def _square(separability: np.ndarray, classes: int) -> np.ndarray:
    """Return (C, K, K) of (C, P), the mean over sources that stand side by side."""
    one, other = np.triu_indices(classes, 1)
    pairs = separability.reshape(len(separability), -1, len(one)).mean(axis=1)
    square = np.zeros((len(separability), classes, classes))
    square[:, one, other] = square[:, other, one] = pairs
    return square


def _grouped(
    square: np.ndarray, count: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Return the separability of at most ``CLASSES`` classes; classes without objects are left out.

    The last of them may be many: its separability is the mean of theirs.
    """
    seen = np.flatnonzero(count > 0)
    if len(seen) > CLASSES:
        by_count = seen[np.argsort(-count[seen], kind="stable")]
        own, rest = np.sort(by_count[: CLASSES - 1]), by_count[CLASSES - 1 :]
        last = square[:, own][:, :, rest].mean(axis=2)
        square = np.pad(square[:, own][:, :, own], ((0, 0), (0, 1), (0, 1)))
        square[:, -1, :-1] = square[:, :-1, -1] = last
        return square, [*(names[k] for k in own.tolist()), f"{len(rest)} others"]
    return square[:, seen][:, :, seen], [names[k] for k in seen.tolist()]


def _names(known: Sequence[str], classes: int) -> list[str]:
    """Return a name for each class; one more than the data have is the background."""
    names = [str(name) for name in known[:classes]]
    if len(known) + 1 == classes and known:
        return [*names, "background"]
    return [*names, *(f"class {k}" for k in range(len(names), classes))]


def _owners(labels: np.ndarray, keep: Sequence[int]) -> str:
    """Return for each channel which of the kept ones, counted from 0, is of its cluster."""
    kept = {int(labels[channel]): number for number, channel in enumerate(keep)}
    owners = [kept.get(int(label), 0) for label in labels]
    kind = np.uint8 if len(keep) <= 256 else np.dtype("<u2")
    return base64.b64encode(np.asarray(owners, dtype=kind).tobytes()).decode()


def _bits(facts: Mapping[str, Any]) -> str:
    mask = np.zeros(facts["channels"], dtype=bool)
    mask[facts["keep"]] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()).decode()


def largest_separability(layers: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the largest byte of all heat maps, so that all are drawn on one scale."""
    maps = [base64.b64decode(layer[key]) for layer in layers.values() for key in ("pairs", "rows")
            if key in layer]  # fmt: skip
    return max((max(values) for values in maps if values), default=255)


def shared_classes(layers: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    """Return the lists of class names, and leave each layer the number of its own."""
    lists: list[list[str]] = []
    for layer in layers.values():
        if "classes" in layer:
            if layer["classes"] not in lists:
                lists.append(layer["classes"])
            layer["classes"] = lists.index(layer["classes"])
    return lists
