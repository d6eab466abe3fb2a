"""Kernel that zeroes rows and columns of integers; all-zero bits are the number zero."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_prune.functional.kernels.compiled import compiled


@compiled
def zero_rows(bits: NDArray[Any], row_removed: NDArray[np.bool_], keep: NDArray[Any]) -> None:
    """Zero whole rows, and in the others the columns whose ``keep`` is 0 (-1: stays).

    Reading is cheaper than writing, and masked weights mostly are zero already: a row is written
    only if it holds something else. An empty ``keep`` keeps every column.
    """
    for i in range(bits.shape[0]):
        row = bits[i]
        found = row[0] & 0
        if row_removed[i]:
            for j in range(row.size):
                found |= row[j]
            if found != 0:
                for j in range(row.size):
                    row[j] = 0
        elif keep.size:
            for j in range(row.size):
                found |= row[j] & ~keep[j]
            if found != 0:
                for j in range(row.size):
                    row[j] &= keep[j]
