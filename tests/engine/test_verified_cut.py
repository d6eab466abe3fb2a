"""A cut that changes what the model gives is noticed."""

import pytest
import torch

from lightning_prune.engine.verified_cut import Verification, verified_cut
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.memory_format import lay_out_channels_last
from tests.networks import EXAMPLE, Residual, make, random_plan


def masked(kind=torch.float32):
    model = make(Residual).to(kind)
    x = torch.rand(1, 3, 8, 8, dtype=kind)
    groups = trace_groups(model, x)
    plan = random_plan(groups)
    ChannelMask(model, groups, plan).apply()
    return model, groups, plan, x


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_masked_channels_are_cut(kind):
    model, groups, plan, x = masked(kind)
    pruned = verified_cut(model, groups, plan, x)
    assert model.stem[0].out_channels == 4
    assert pruned.output_difference < 0.1
    assert pruned.masked is None


def test_under_autocast_outputs_are_compared_in_full_precision():
    model, groups, plan, x = masked()
    lay_out_channels_last([model])
    checks = Verification(context=lambda: torch.autocast("cpu", torch.bfloat16))
    assert verified_cut(model, groups, plan, x, checks).output_difference < 1e-5


def test_channels_that_are_not_zero_are_named():
    model = make(Residual)
    groups = trace_groups(model, EXAMPLE)
    with pytest.raises(RuntimeError, match=r"not zero in .*stem\.0\.weight"):
        verified_cut(model, groups, random_plan(groups), EXAMPLE)


@pytest.mark.parametrize("compare", [True, False])
def test_a_cut_that_changes_the_output_is_an_error_where_outputs_are_compared(compare):
    model, groups, plan, x = masked()

    def wrong_call(net, inputs):  # as a layer that counts its channels would
        return call(net, inputs) * net.stem[0].out_channels

    checks = Verification(compare=compare)
    if compare:
        with pytest.raises(RuntimeError, match=r"differs from the masked one by .*\(allowed 0"):
            verified_cut(model, groups, plan, x, checks, forward=wrong_call)
    else:
        assert verified_cut(model, groups, plan, x, checks).output_difference is None


def test_a_forward_of_ones_own():
    model, groups, plan, x = masked()
    seen = []

    def forward(net, inputs):
        seen.append(type(inputs))
        return {"scores": net(inputs["image"])}

    verified_cut(model, groups, plan, {"image": x}, forward=forward)
    assert seen == [dict, dict]


def test_the_masked_model_is_kept_for_comparisons():
    model, groups, plan, x = masked()
    before = model.eval()(x)
    pruned = verified_cut(model, groups, plan, x, Verification(keep_masked=True))
    assert pruned.masked(x).equal(before)
    assert pruned.masked.stem[0].out_channels > model.stem[0].out_channels
