"""The order of a step, what is resumed and what is lifted, without a Trainer."""

import functools

import pytest
import torch
from torch import nn

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
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.policies.selection.repaired_losses import repaired_losses
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.places import places_for
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.walked_refit import walked_refit
from tests.networks import EXAMPLE, Residual, make

SCHEDULE = RatioSchedule(1, 5, 2, 0.6)  # steps at 1 and 3


def masking_of(model, criterion=None, images=None, ranking="global", **front):
    groups = trace_groups(model, EXAMPLE)
    names = tuple(groups)
    macs = MacModel.of(model, groups, EXAMPLE)
    selection = RatioSelection(groups, names, macs, criterion or GroupNorm(), ranking)
    end = LoopFrontEnd(model, call, lambda: EXAMPLE, **front)
    steps = RatioSteps(SCHEDULE, names, hold_epochs=1)
    return Masking(end, RatioPolicy(model, selection, None), steps, images or Images())


def test_a_step_collects_decides_masks_and_refits_in_this_order(monkeypatch):
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
    for name in ("refit_masked", "LiveChannels", "reestimate_norms"):
        noted(name)
    state = run.advance(MaskState(), 1)
    # Norms of the network that is imitated; those behind the masks follow with the refit.
    assert order == [
        "collect", "collect", "decide", "LiveChannels", "reestimate_norms", "refit_masked",
    ]  # fmt: skip
    assert state.phase is Phase.MASKING
    assert run.advance(state, 1) is state


def scrambled() -> nn.Module:
    model = make(Residual)
    scramble(model)
    return model


def pictures(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return [torch.randn(8, *EXAMPLE.shape[1:], generator=random) for _ in range(count)]


def test_the_refit_of_a_step_is_the_walk_of_its_plan():
    model, batches = scrambled(), pictures(2)
    dense, walked = copy_module(model), copy_module(model)
    run = masking_of(model, images=Images(0, 16, 0), batches_of=batches)
    state = run.advance(MaskState(), 1)
    groups = trace_groups(walked, EXAMPLE)
    walked_refit(walked, dense, groups, state.plan, batches, call, places=places_for(16))
    for (name, own), wanted in zip(
        model.state_dict().items(), walked.state_dict().values(), strict=True
    ):
        assert torch.equal(own, wanted), name
    assert not torch.equal(model.head.weight, dense.head.weight)


def test_a_step_is_nearer_to_the_dense_network_with_the_refit():
    errors = []
    for refit in (0, 32):
        model, batches = scrambled(), pictures(4)
        dense = copy_module(model)
        masking_of(model, images=Images(0, refit, 0), batches_of=batches).advance(MaskState(), 1)
        with torch.no_grad():
            seen = torch.cat(pictures(8)[4:])  # others than those that were fitted
            errors.append(float((model.eval()(seen) - dense.eval()(seen)).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_images_whose_paths_part_are_refitted_in_separate_passes():
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            sides = (self.left, self.right) if x.mean() > 0 else (self.right, self.left)
            x = torch.relu(self.first(x))
            return sum(side(x) for side in sides)

    torch.manual_seed(0)
    model = Turning()
    batches = [torch.rand(8, 3, 8, 8), -torch.rand(8, 3, 8, 8)]
    dense = copy_module(model)
    run = masking_of(model, images=Images(0, 16, 0), batches_of=batches)
    with pytest.warns(UserWarning, match="refitted in separate passes"):
        state = run.advance(MaskState(), 1)
    gone = state.plan.removed("first")
    assert len(gone) > 0
    assert not model.left.weight[:, gone].any()
    assert not torch.equal(model.left.weight[:, state.plan.keep["first"]],
                           dense.left.weight[:, state.plan.keep["first"]])  # fmt: skip


@pytest.mark.parametrize("ranking", ["local", "measured"])
def test_losses_decide_in_a_masking_step(ranking):
    model, batches = scrambled(), pictures(4)
    with torch.no_grad():  # two channels say what another one says
        conv, norm = model.a1[0], model.a1[1]
        for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[[1, 4]] = tensor[[0, 0]].clone()
    run = masking_of(model, Reconstruction(), Images(32, 0, 0), batches_of=batches, ranking=ranking)
    order = run.advance(MaskState(), 1).plan.removed("a1.0").tolist()
    assert len(order) >= 2
    assert len({0, 1, 4} & set(order)) >= 2
    wanted = repaired_losses(
        copy_module(model), run.policy.groups, {"a1.0": (6, 5, 4, 3, 2, 1)}, batches, call,
        places=places_for(32),
    )  # fmt: skip
    assert wanted["a1.0"].losses[2] < 1e-3


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
