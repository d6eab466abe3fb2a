import itertools

import numpy as np
import pytest
import torch

from lightning_prune.graph.kept_fraction import KeptFraction

CHANNELS = {"a": 4, "heads": 3, "width": 5}


def lattice():
    """4 channels of 2 positions each, then a lattice of 3 heads of 5, then 2 of no group."""
    rows = torch.arange(15)
    held = [("a", torch.arange(8)), ("heads", 8 + rows), ("width", 8 + rows)]
    return KeptFraction.of(25, held)


def brute(widths):
    kept = np.ones(25, dtype=bool)
    kept[:8] = np.repeat(np.arange(4) < widths["a"], 2)
    kept[8:23] = np.outer(np.arange(3) < widths["heads"], np.arange(5) < widths["width"]).ravel()
    return kept.mean()


@pytest.mark.parametrize("wide", list(itertools.product((1, 3, 4), (1, 3), (0, 2, 5))))
def test_it_is_the_fraction_of_the_positions_that_stay(wide):
    widths = dict(zip(CHANNELS, wide, strict=True))
    fraction = lattice()
    assert fraction.at(widths, CHANNELS) == pytest.approx(brute(widths), abs=1e-12)
    place = {name: i for i, name in enumerate(CHANNELS)}
    polynomial = sum(
        value * np.prod([wide[p] for p in key])
        for key, value in fraction.monomials(place, CHANNELS)
    )
    assert polynomial == pytest.approx(brute(widths), abs=1e-12)


def test_groups_that_are_not_named_keep_all():
    fraction = lattice()
    assert fraction.at({"width": 2}, CHANNELS) == pytest.approx(brute(CHANNELS | {"width": 2}))
    found = dict(fraction.monomials({"heads": 0}, CHANNELS))
    assert found == pytest.approx({(): 10 / 25, (0,): 5 / 25})


def test_where_factors_overlap_in_part_each_position_goes_with_those_that_have_it():
    held = [("a", torch.arange(0, 6)), ("heads", torch.arange(4, 10))]
    assert KeptFraction.of(12, held).parts == ((4, ("a",)), (2, ("a", "heads")), (4, ("heads",)))


def test_one_group_of_all_positions_is_told():
    every = torch.arange(4)
    assert KeptFraction.of(4, [("a", every)]).only == "a"
    assert KeptFraction.of(5, [("a", every)]).only is None
    assert KeptFraction.of(4, [("a", every), ("b", every)]).only is None
