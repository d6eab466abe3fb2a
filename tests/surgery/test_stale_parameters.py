"""Optimizers that were forgotten at a cut."""

import gc

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.stale_parameters import StaleParameters
from tests.networks import EXAMPLE, Residual, make, random_plan


def test_an_old_optimizer_is_refused_and_a_new_one_is_not():
    model = make(Residual)
    old = torch.optim.Adam(model.parameters())
    groups = trace_groups(model, EXAMPLE)
    stale = StaleParameters(cut_channels(model, groups, random_plan(groups)).parameters)
    with pytest.raises(RuntimeError, match=r"Adam still trains stem\.0\.weight as it was"):
        stale.check(old)
    stale.check(torch.optim.Adam(model.parameters()))
    assert stale._old
    del old
    gc.collect()
    stale.check(torch.optim.Adam(model.parameters()))
    assert not stale._old  # nothing left to look for, and nothing kept alive


def test_nothing_was_cut():
    StaleParameters().check(torch.optim.Adam(make(Residual).parameters()))
