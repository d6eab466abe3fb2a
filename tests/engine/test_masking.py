"""The order of a step, what is resumed and what is lifted, without a Trainer."""

import functools

import pytest
import torch

from lightning_prune.engine import masking
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.masking import Images, Masking
from lightning_prune.engine.phase import Phase
from lightning_prune.engine.ratio_policy import RatioPolicy
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.front_end import LoopFrontEnd
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from tests.networks import EXAMPLE, Residual, make

SCHEDULE = RatioSchedule(1, 5, 2, 0.6)  # steps at 1 and 3


def masking_of(model, criterion=None, images=None, **front):
    groups = trace_groups(model, EXAMPLE)
    names = tuple(groups)
    macs = MacModel.of(model, groups, EXAMPLE)
    selection = RatioSelection(groups, names, macs, criterion or GroupNorm())
    end = LoopFrontEnd(model, call, lambda: EXAMPLE, **front)
    steps = RatioSteps(SCHEDULE, names, hold_epochs=1)
    return Masking(end, RatioPolicy(model, selection, None), steps, images or Images())


def test_a_step_collects_decides_refits_masks_and_reestimates_in_this_order(monkeypatch):
    order = []

    class Gradients(Criterion):
        needs = frozenset({"batch_gradients"})

        def add_batch(self, model, groups, names):
            order.append("collect")

        def importance(self, evidence):
            order.append("decide") if order[-1] != "decide" else None
            return torch.arange(evidence.group.channels).double()

    def noted(name):
        real = getattr(masking, name)

        @functools.wraps(real)
        def call_it(*arguments):
            order.append(name)
            return real(*arguments)

        monkeypatch.setattr(masking, name, call_it)

    model = make(Residual)
    run = masking_of(
        model, Gradients(), Images(8, 8, 8), batches_of=[EXAMPLE.repeat(4, 1, 1, 1)] * 2,
        loss=lambda net, batch: net(batch).square().mean(),
    )  # fmt: skip
    for name in ("refit_consumers", "LiveChannels", "reestimate_norms"):
        noted(name)
    state = run.advance(MaskState(), 1)
    assert order == [
        "collect", "collect", "decide", "refit_consumers", "LiveChannels", "reestimate_norms",
    ]  # fmt: skip
    assert state.phase is Phase.MASKING
    assert run.advance(state, 1) is state


def test_a_run_goes_through_its_phases():
    run, state, phases = masking_of(make(Residual)), MaskState(), []
    for epoch in range(6):
        state = run.advance(state, epoch)
        phases.append((str(state.phase), state.finished))
    assert phases == [
        ("dense", False), ("masking", False), ("masking", False), ("holding", False),
        ("holding", True), ("holding", True),
    ]  # fmt: skip


def test_a_resumed_state_is_held_and_goes_on_alike():
    model, other = make(Residual), make(Residual)
    run = masking_of(model)
    state = run.advance(MaskState(), 1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    straight = run.advance(state, 3)
    other.load_state_dict(weights)
    again = masking_of(other)
    resumed = again.advance(again.hold(MaskState.from_state_dict(state.state_dict())), 3)
    assert str(resumed.plan) == str(straight.plan)
    assert resumed.originals["values"].keys() == straight.originals["values"].keys()
    for name, value in straight.originals["values"].items():
        assert torch.equal(resumed.originals["values"][name], value), name


def test_freed_groups_are_as_they_were_and_not_masked_again():
    model = make(Residual)
    dense = {name: value.clone() for name, value in model.state_dict().items()}
    run = masking_of(model)
    state = run.free(run.advance(MaskState(), 1), ["b1.0"])
    removed = ~state.plan.mask("stem.0")
    assert torch.equal(model.b1[0].weight[:, ~removed], dense["b1.0.weight"][:, ~removed])
    assert "b1.0" not in run.advance(state, 3).plan.keep
    with pytest.raises(KeyError, match=r"no mask on b1\.0"):
        run.free(state, ["b1.0"])
