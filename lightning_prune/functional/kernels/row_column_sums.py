"""Kernels over rows and columns of weights: rows are output channels, columns hold the inputs.

A weight (O, I, ...) is read as the (O, M) matrix of its memory. ``stride`` is the distance of two
neighbours of its second dimension in memory, so that column j belongs to input
``(j // stride) % I``: the kernel's size for contiguous weights, 1 for channels-last ones.

One call serves all tensors of a network, given by address: hundreds of calls with arrays would
cost more than the arithmetic.
"""

from functools import partial
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from lightning_prune.functional.kernels.compiled import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
# Sums in vector registers: in another order than written, but NaN and inf stay what they are.
_fast = partial(compiled, fastmath={"reassoc", "contract"})


def _to_pointer(_context: Any, address: Any) -> Any:

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


# Turns an address into a pointer that ``carray`` takes.
_pointer: Any = intrinsic(_to_pointer)


@_fast
def _sum_squares(weight: Floats, stride: int, rows: Floats, columns: Floats) -> None:
    """Write each row's and each input's sum of squares; an empty vector is not wanted."""
    height, width = weight.shape
    if columns.size == 0:
        for o in range(height):
            total = np.float32(0)
            for j in range(width):
                total += weight[o, j] * weight[o, j]
            rows[o] = total
        return
    down = np.zeros(width, dtype=np.float32)
    o = 0
    while o + 4 <= height:
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(width):
            a = weight[o, j] * weight[o, j]
            b = weight[o + 1, j] * weight[o + 1, j]
            c = weight[o + 2, j] * weight[o + 2, j]
            d = weight[o + 3, j] * weight[o + 3, j]
            s0 += a
            s1 += b
            s2 += c
            s3 += d
            down[j] += (a + b) + (c + d)
        if rows.size:
            rows[o], rows[o + 1], rows[o + 2], rows[o + 3] = s0, s1, s2, s3
        o += 4
    while o < height:
        total = np.float32(0)
        for j in range(width):
            a = weight[o, j] * weight[o, j]
            total += a
            down[j] += a
        if rows.size:
            rows[o] = total
        o += 1
    columns[:] = 0
    j = 0
    while j < width:
        for i in range(columns.size):
            total = np.float32(0)
            for k in range(j, j + stride):
                total += down[k]
            columns[i] += total
            j += stride


@_fast
def _add_scaled(grad: Floats, weight: Floats, stride: int, rows: Floats, columns: Floats) -> None:
    """Add ``weight * (rows + columns)`` to the gradient; an empty vector counts as zeros."""
    height, width = weight.shape
    across = np.zeros(width, dtype=np.float32)
    j = 0
    while columns.size and j < width:
        for i in range(columns.size):
            for k in range(j, j + stride):
                across[k] = columns[i]
            j += stride
    for o in range(height):
        down = rows[o] if rows.size else np.float32(0)
        for j in range(width):
            grad[o, j] += weight[o, j] * (down + across[j])


@_fast
def sum_all_squares(weights: Ints, table: Ints, sums: Floats) -> None:
    """Write the sums of squares of the rows and columns of all tensors, one after the other.

    ``weights`` (T,) are addresses; each row of ``table`` (T, 5) holds O, M, stride, and the
    numbers of rows and of inputs whose sums are wanted: all or none.
    """
    place = 0
    for t in range(weights.size):
        weight = carray(_pointer(weights[t]), (table[t, 0], table[t, 1]), np.float32)
        middle = place + table[t, 3]
        end = middle + table[t, 4]
        _sum_squares(weight, table[t, 2], sums[place:middle], sums[middle:end])
        place = end


@_fast
def add_all_scaled(grads: Ints, weights: Ints, table: Ints, scale: Floats) -> None:
    """Add to all gradients their weights times their scales by row and column; address 0: skip."""
    place = 0
    for t in range(weights.size):
        middle = place + table[t, 3]
        end = middle + table[t, 4]
        if grads[t] != 0:
            shape = (table[t, 0], table[t, 1])
            grad = carray(_pointer(grads[t]), shape, np.float32)
            weight = carray(_pointer(weights[t]), shape, np.float32)
            _add_scaled(grad, weight, table[t, 2], scale[place:middle], scale[middle:end])
        place = end
