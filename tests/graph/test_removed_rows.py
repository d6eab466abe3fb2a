import numpy as np
import pytest
import torch

from lightning_prune.graph.removed_rows import Axis, axes, removed_rows
from lightning_prune.plan import PruningPlan
from tests.graph.factors import HEADS, OUTPUTS, WIDTH, factor_groups

KEEP = {"embed": [1, 2, 7], "qkv": [0, 3], "qkv:2": [1, 2, 4, 5]}
WIDE = {"embed": OUTPUTS, "qkv": HEADS, "qkv:2": WIDTH}


def plan_of(*names):
    keep = {name: torch.tensor(KEEP[name]) for name in names}
    return PruningPlan(keep, {name: WIDE[name] for name in names})


def stays(name, names):
    mask = np.ones(WIDE[name], dtype=bool)
    if name in names:
        mask[:] = False
        mask[KEEP[name]] = True
    return mask


@pytest.mark.parametrize("names", [(*WIDE,), ("qkv",), ("qkv:2",), ("qkv", "qkv:2"), ("embed",)])
def test_of_factors_the_product_stays(names):
    grid = np.outer(stays("qkv", names), stays("qkv:2", names)).ravel()
    expected = {
        Axis("qkv", "weight", 0): np.tile(grid, 3),
        Axis("qkv", "bias", 0): np.tile(grid, 3),
        Axis("project", "weight", 1): grid,
        Axis("project", "weight", 0): stays("embed", names),
        Axis("qkv", "weight", 1): stays("embed", names),
    }
    found = removed_rows(factor_groups(), plan_of(*names))
    for axis, kept in expected.items():
        assert found.get(axis, torch.zeros(0)).tolist() == np.flatnonzero(~kept).tolist(), axis


def test_an_axis_knows_all_who_have_channels_there():
    held = axes(factor_groups())
    assert [name for name, _ in held[Axis("qkv", "weight", 0)]] == ["qkv", "qkv:2"]
    assert [name for name, _ in held[Axis("qkv", "weight", 1)]] == ["embed"]


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(KeyError, match="names group 'other'"):
        removed_rows(factor_groups(), PruningPlan({"other": torch.tensor([0])}, {"other": 2}))
    with pytest.raises(ValueError, match="made for 3 channels of 'qkv'"):
        removed_rows(factor_groups(), PruningPlan({"qkv": torch.tensor([0])}, {"qkv": 3}))
