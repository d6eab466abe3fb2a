"""Widths of the least loss against all widths that there are."""

import itertools

import numpy as np
import pytest

from lightning_prune.functional.widths.least_loss import least_loss_widths


def problem(seed: int, groups: int = 4, sizes: int = 5):
    """A chain whose layers cost the product of their widths, and convex or ragged losses."""
    random = np.random.default_rng(seed)
    widths = [[8 * n for n in range(sizes, 0, -1)] for _ in range(groups)]
    losses = []
    for _ in widths:
        steps = random.exponential(size=sizes - 1) * random.lognormal()
        losses.append([0.0, *np.cumsum(np.sort(steps) if seed % 2 else steps)])

    weight = random.uniform(0.5, 5, groups + 1)

    def cost(chosen):
        chain = [3, *chosen, 10]
        return float(
            sum(w * a * b for w, (a, b) in zip(weight, itertools.pairwise(chain), strict=True))
        )

    share = random.uniform(0.25, 0.75)
    return widths, losses, cost, share * cost([own[0] for own in widths])


def total(widths, losses, chosen):
    return sum(own[w.index(c)] for w, own, c in zip(widths, losses, chosen, strict=True))


def test_within_the_budget_and_near_the_best():
    ratios = []
    for seed in range(30):
        widths, losses, cost, budget = problem(seed)
        found = least_loss_widths(widths, losses, cost, budget)
        assert cost(found) <= budget
        assert all(w in own for w, own in zip(found, widths, strict=True))
        best = min(
            total(widths, losses, chosen)
            for chosen in itertools.product(*widths)
            if cost(chosen) <= budget
        )
        ratios.append(total(widths, losses, found) / best)
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) < 1.3
    assert np.median(ratios) < 1.1


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_no_width_can_grow_any_more(power):
    for seed in range(10):
        widths, losses, cost, budget = problem(seed)
        found = least_loss_widths(widths, losses, cost, budget, power)
        assert cost(found) <= budget
        for group, own in enumerate(widths):
            place = own.index(found[group])
            if place:
                wider = [*found[:group], own[place - 1], *found[group + 1 :]]
                assert cost(wider) > budget


def test_a_power_below_one_takes_a_large_loss_that_saves_much():
    widths, losses = [[10, 1], [10, 8]], [[0.0, 4.0], [0.0, 0.5]]
    assert least_loss_widths(widths, losses, sum, 18, 1.0) == [10, 8]
    assert least_loss_widths(widths, losses, sum, 18, 0.25) == [1, 10]


def test_a_free_step_behind_a_dear_one_is_seen():
    widths = [[4, 3, 2, 1], [4, 3, 2, 1]]
    losses = [[0.0, 1.0, 1.0, 1.0], [0.0, 0.9, 1.8, 2.7]]
    assert least_loss_widths(widths, losses, sum, 5) == [1, 4]


def test_what_fits_already_stays():
    assert least_loss_widths([[4, 2], [6, 3]], [[0, 1], [0, 1]], sum, 10) == [4, 6]
    assert least_loss_widths([[4], [6]], [[0], [0]], sum, 10) == [4, 6]


def test_out_of_reach_is_said():
    with pytest.raises(ValueError, match="the budget 4 cannot be met: the narrowest widths cost 5"):
        least_loss_widths([[4, 2], [6, 3]], [[0, 1], [0, 1]], sum, 4)
    assert least_loss_widths([[4, 2], [6, 3]], [[0, 1], [0, 1]], sum, 5) == [2, 3]
