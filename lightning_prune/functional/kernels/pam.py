"""Kernels of k-medoids: eager swaps, growing and shrinking a set of medoids.

The swap search is FasterPAM (Schubert and Rousseeuw 2021, "Fast and eager k-medoids clustering",
Information Systems 101, doi:10.1016/j.is.2021.101804) with one more economy: neighbours are
visited nearest first, and a candidate is left as soon as no farther point can prefer it. With k
medoids that is some n / k points instead of n, which makes a sweep over all k nearly as cheap as
its few smallest k.

``diss`` is a symmetric (n, n) float64 matrix with a zero diagonal, ``order`` its rows' argsort
with each point first in its own row. ``near`` and ``second`` hold slots of ``medoids``.
"""

import numpy as np
from numpy.typing import NDArray

from lightning_prune.functional.kernels.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Differences of sums below this fraction of the loss are rounding: swapping on them could cycle.
_TOLERANCE = 1e-12


@compiled
def slots_of(medoids: Ints, n: int) -> Ints:
    """Map points to their position among the medoids, -1 for the others."""
    slot = np.full(n, -1, dtype=np.int64)
    for i in range(medoids.size):
        slot[medoids[i]] = i
    return slot


@compiled
def find_nearest(point: int, order: Ints, slot: Ints) -> tuple[int, int]:
    """Return the slots of the nearest and second nearest medoid, -1 where there is none."""
    first = -1
    for j in range(order.shape[1]):
        i = slot[order[point, j]]
        if i >= 0:
            if first >= 0:
                return first, i
            first = i
    return first, -1


@compiled
def assign(diss: Floats, order: Ints, medoids: Ints) -> tuple[Ints, float]:
    """Return each point's slot and the loss; a medoid always belongs to its own cluster."""
    n = diss.shape[0]
    slot = slots_of(medoids, n)
    labels = np.empty(n, dtype=np.int64)
    loss = 0.0
    for o in range(n):
        labels[o] = find_nearest(o, order, slot)[0]
        loss += diss[o, medoids[labels[o]]]
    return labels, loss


@compiled
def refresh(
    points: Ints,
    diss: Floats,
    order: Ints,
    medoids: Ints,
    slot: Ints,
    near: Ints,
    second: Ints,
    d_near: Floats,
    d_second: Floats,
) -> None:
    """Find the two nearest medoids of the given points again."""
    for o in points:
        near[o], second[o] = find_nearest(o, order, slot)
        d_near[o] = diss[o, medoids[near[o]]]
        d_second[o] = diss[o, medoids[second[o]]]


@compiled
def removal_losses(near: Ints, d_near: Floats, d_second: Floats, k: int) -> Floats:
    """Return how much the loss grows when each medoid is taken away."""
    removal = np.zeros(k)
    for o in range(near.size):
        removal[near[o]] += d_second[o] - d_near[o]
    return removal


@compiled
def best_swap(
    candidate: int,
    diss: Floats,
    order: Ints,
    near: Ints,
    d_near: Floats,
    d_second: Floats,
    removal: Floats,
    cheapest: int,
    radius: float,
    saved: Floats,
    touched: Ints,
    stamp: Ints,
    visit: int,
) -> tuple[int, float]:
    """Return the medoid best replaced by the candidate, and the change of the loss.

    ``cheapest`` is the medoid of the least removal loss, ``radius`` the largest distance to a
    second medoid: points beyond it cannot prefer the candidate. ``saved`` (k zeros, zeros again on
    return), ``touched`` (k) and ``stamp`` (k) are working space; ``visit`` is a number that no
    earlier call with the same ``stamp`` had.
    """
    shared = 0.0
    count = 0
    for j in range(order.shape[1]):
        o = order[candidate, j]
        d = diss[candidate, o]
        if d >= radius:
            break
        if d >= d_second[o]:
            continue
        i = near[o]
        # Not by saved[i] == 0: with equal distances a medoid may be touched and save nothing.
        if stamp[i] != visit:
            stamp[i] = visit
            touched[count] = i
            count += 1
        if d < d_near[o]:
            shared += d - d_near[o]
            saved[i] += d_near[o] - d_second[o]
        else:
            saved[i] += d - d_second[o]
    # A medoid that no visited point belongs to costs its whole removal loss, so among those only
    # the cheapest can win.
    best = cheapest
    change = removal[best]
    for j in range(count):
        i = touched[j]
        if removal[i] + saved[i] < change:
            best, change = i, removal[i] + saved[i]
    for j in range(count):
        saved[touched[j]] = 0.0
    return best, change + shared


@compiled
def swap_to_optimum(diss: Floats, order: Ints, medoids: Ints) -> float:
    """Swap medoids in place until no swap of one lowers the loss; return the loss.

    Needs 2 <= k < n.
    """
    n, k = diss.shape[0], medoids.size
    slot = slots_of(medoids, n)
    near, second = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    d_near, d_second = np.empty(n), np.empty(n)
    saved, touched = np.zeros(k), np.empty(k, dtype=np.int64)
    stamp, visit = np.full(k, -1, dtype=np.int64), 0
    refresh(np.arange(n), diss, order, medoids, slot, near, second, d_near, d_second)
    removal = removal_losses(near, d_near, d_second, k)
    cheapest = int(np.argmin(removal))
    radius, loss = d_second.max(), d_near.sum()
    candidate = -1
    unchanged = 0
    while unchanged < n:
        candidate = (candidate + 1) % n
        unchanged += 1
        if slot[candidate] >= 0:
            continue
        i, change = best_swap(
            candidate,
            diss,
            order,
            near,
            d_near,
            d_second,
            removal,
            cheapest,
            radius,
            saved,
            touched,
            stamp,
            visit,
        )
        visit += 1
        if change >= -_TOLERANCE * loss:
            continue
        slot[medoids[i]] = -1
        slot[candidate] = i
        medoids[i] = candidate
        unchanged = 0
        nearer = diss[candidate] < d_second
        stale = np.nonzero((near == i) | (second == i) | nearer)[0]
        refresh(stale, diss, order, medoids, slot, near, second, d_near, d_second)
        removal = removal_losses(near, d_near, d_second, k)
        cheapest = int(np.argmin(removal))
        radius, loss = d_second.max(), d_near.sum()
    return assign(diss, order, medoids)[1]


@compiled
def grow(diss: Floats, order: Ints, medoids: Ints) -> Ints:
    """Add the medoid that lowers the loss most (first on ties)."""
    n = diss.shape[0]
    slot = slots_of(medoids, n)
    labels = assign(diss, order, medoids)[0]
    d_near = np.empty(n)
    for o in range(n):
        d_near[o] = diss[o, medoids[labels[o]]]
    radius = d_near.max()
    best, best_gain = -1, -1.0
    for candidate in range(n):
        if slot[candidate] >= 0:
            continue
        gain = 0.0
        for j in range(n):
            o = order[candidate, j]
            if diss[candidate, o] >= radius:
                break
            gain += max(0.0, d_near[o] - diss[candidate, o])
        if gain > best_gain:
            best, best_gain = candidate, gain
    return np.append(medoids, best)


@compiled
def shrink(diss: Floats, order: Ints, medoids: Ints) -> Ints:
    """Remove the medoid that raises the loss least (first on ties); needs k >= 2."""
    n = diss.shape[0]
    slot = slots_of(medoids, n)
    removal = np.zeros(medoids.size)
    for o in range(n):
        i, j = find_nearest(o, order, slot)
        removal[i] += diss[o, medoids[j]] - diss[o, medoids[i]]
    worst = np.argmin(removal)
    return np.concatenate((medoids[:worst], medoids[worst + 1 :]))
