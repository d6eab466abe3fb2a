"""What is stored of each decision, in `report_data/`: a small JSON and arrays beside it."""

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.files.read_json import read_json

FOLDER = "report_data"
VERSION = 1
LARGEST = 2.0
"""Largest value of a separability, stored as 255."""


@dataclass(frozen=True)
class StoredDecision:
    """What was stored of the choice among a group's channels.

    Attributes:
        facts: Content of the JSON file: ``group``, ``channels``, ``keep``, ``knee``, ``bound``,
            ``status``, ``reason``, ``criterion``, ``classes`` (names), ``method`` of the
            embedding, ``clusterer`` (its settings or None), ``sources`` (names of layers), ``mss``
            (pairs of k and value) and ``losses`` (pairs of width and loss).
        arrays: Name -> array: ``norms`` (C,), ``importance`` (C,), ``separability`` (C, P) as
            bytes, 255 for 2, ``embedding`` (C, 2), ``labels`` (C,), and of each source i
            ``count_i`` (K,), ``mean_i`` and ``variance_i`` (n, K), ``channel_i`` (n,); those that
            are known.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def separability(self) -> np.ndarray | None:
        """Return the (C, P) separability in [0, 2], to one part in 255; None: not measured."""
        found = self.arrays.get("separability")
        return None if found is None else found.astype(np.float64) * (LARGEST / 255)


def group_file(group: str) -> str:
    """Return a group's name as the name of a file, without suffix.

    >>> group_file("backbone.p1.conv:2"), group_file("a/b c")
    ('backbone.p1.conv_2', 'a_b_c')
    """
    return re.sub(r"[^\w.-]", "_", group)


def read_decision(folder: Path, group: str) -> StoredDecision | None:
    """Read what is stored of a group; None: nothing, or nothing of this version."""
    path = folder / FOLDER / f"{group_file(group)}.json"
    facts = read_json(path)
    if facts is None or facts.get("version") != VERSION or facts.get("group") != group:
        return None
    try:
        with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as held:
            return StoredDecision(facts, {name: held[name] for name in held.files})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return StoredDecision(facts)
