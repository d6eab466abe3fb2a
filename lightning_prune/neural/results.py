"""Files with the result of every cell, of the dense and of the pruned model, and the difference."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.files.write_bytes import write_bytes
from lightning_prune.neural.functional.paired_difference import paired_difference
from lightning_prune.surgery.architecture import is_cut

DENSE = "bits_per_spike_dense.json"
PRUNED = "bits_per_spike_pruned.json"
PAIRED = "bits_per_spike_paired.json"


def write_cells(
    module: nn.Module,
    folder: str | Path,
    values: Sequence[Tensor],
    correlation: Sequence[Tensor] | None = None,
) -> dict[str, Any] | None:
    """Write the bits per spike of every cell, as they are, below zero too.

    A module from which channels were cut writes ``bits_per_spike_pruned.json``, any other one
    ``bits_per_spike_dense.json``. Where both are there, of the same cells,
    ``bits_per_spike_paired.json`` compares them cell by cell.

    Args:
        module: The tracked module that was tested.
        folder: Where the files are written.
        values: (N,) bits per spike of each session's cells; NaN for cells without spikes.
        correlation: (N,) CCnorm of each session's cells, where stimuli were repeated.

    Returns:
        What was written of the comparison, or None.
    """
    folder = Path(folder)
    content = {
        "bits_per_spike": [_numbers(value) for value in values],
        "ccnorm": None if correlation is None else [_numbers(value) for value in correlation],
    }
    _write(folder / (PRUNED if is_cut(module) else DENSE), content)
    dense, pruned = (_read(folder / name) for name in (DENSE, PRUNED))
    if dense is None or pruned is None:
        return None
    before, after = (
        [torch.tensor([math.nan if v is None else v for v in session]) for session in sessions]
        for sessions in (dense, pruned)
    )
    if [len(session) for session in before] != [len(session) for session in after]:
        return None
    found = paired_difference(torch.cat(before), torch.cat(after))
    paired = {
        "mean_difference": _number(found.mean),
        "interval_95": [_number(found.low), _number(found.high)],
        "cells": found.cells,
        "cells_that_lost": found.lost,
        "differences": [_numbers(part) for part in found.difference.split([*map(len, before)])],
    }
    _write(folder / PAIRED, paired)
    return paired


def say_paired(paired: Mapping[str, Any]) -> str:
    """Return one sentence on what pruning did to the cells.

    >>> paired = {"mean_difference": -0.01, "interval_95": [-0.02, 0.005], "cells": 40}
    >>> say_paired({**paired, "cells_that_lost": 23}).partition(": ")[2]
    '-0.0100 bits per spike (95 %: -0.0200 to +0.0050), 23 of 40 cells lost'
    """
    if paired["mean_difference"] is None:
        return "pruned against dense, cell by cell: no cell has a value in both"
    low, high = paired["interval_95"]
    return (
        f"pruned against dense, cell by cell: {paired['mean_difference']:+.4f} bits per spike "
        f"(95 %: {low:+.4f} to {high:+.4f}), {paired['cells_that_lost']} of {paired['cells']} "
        "cells lost"
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _write(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _read(path: Path) -> list[list[float | None]] | None:
    try:
        sessions: list[list[float | None]] = json.loads(path.read_text())["bits_per_spike"]
    except (OSError, ValueError, KeyError):
        return None
    return sessions
