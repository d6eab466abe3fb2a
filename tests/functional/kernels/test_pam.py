import numpy as np
import pytest
import torch

from lightning_prune.functional.kernels import pam as _pam
from lightning_prune.functional.selection.kmedoids import kmedoids_sweep


def tied_points() -> np.ndarray:
    """Clusters of identical points: first and second medoid are then equally near."""
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    return np.repeat(places, 10, axis=0)


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


@pytest.mark.parametrize("seed", range(5))
def test_working_space_holds_with_ties(seed):
    """In Python, where an index beyond the end is an error, not a corrupted heap."""
    diss = distances(tied_points())
    n, k = len(diss), 4
    order = np.argsort(diss, axis=1, kind="stable")
    for o in range(n):  # each point first in its own row
        row = order[o].tolist()
        row.remove(o)
        order[o] = [o, *row]
    generator = np.random.default_rng(seed)
    medoids = np.sort(generator.permutation(n)[:k])
    slot = _pam.slots_of(medoids, n)
    near, second = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    d_near, d_second = np.empty(n), np.empty(n)
    _pam.refresh(np.arange(n), diss, order, medoids, slot, near, second, d_near, d_second)
    removal = _pam.removal_losses(near, d_near, d_second, k)
    saved, touched = np.zeros(k), np.empty(k, dtype=np.int64)
    stamp = np.full(k, -1, dtype=np.int64)
    for visit, candidate in enumerate(o for o in range(n) if slot[o] < 0):
        arguments = (candidate, diss, order, near, d_near, d_second, removal)
        i, change = _pam.best_swap.py_func(
            *arguments, int(removal.argmin()), d_second.max() + 1, saved, touched, stamp, visit
        )
        swapped = medoids.copy()
        swapped[i] = candidate
        expected = diss[:, swapped].min(1).sum() - d_near.sum()
        assert change == pytest.approx(expected, abs=1e-9)
        assert not saved.any()


def test_sweep_over_duplicates_reaches_zero_loss():
    diss = distances(tied_points())
    sweep = kmedoids_sweep(torch.from_numpy(diss), range(1, len(diss) + 1), 0)
    assert [round(float(c.loss), 9) for c in sweep[3:]] == [0.0] * (len(diss) - 3)
