"""A cut that changes what the model gives is noticed."""

import pytest
import torch

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.exact_cut import exact_cut
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import EXAMPLE, Residual, make, random_plan


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_masked_channels_are_cut(kind):
    model = make(Residual).to(kind)
    x = torch.rand(1, 3, 8, 8, dtype=kind)
    groups = trace_groups(model, x)
    plan = random_plan(groups)
    ChannelMask(model, groups, plan).apply()
    exact_cut(model, groups, plan, x, call)
    assert model.stem[0].out_channels == 4


def test_channels_that_were_not_masked():
    model = make(Residual)
    groups = trace_groups(model, EXAMPLE)
    with pytest.raises(RuntimeError, match="the cut model differs from the masked one by"):
        exact_cut(model, groups, random_plan(groups), EXAMPLE, call)


def test_a_forward_of_ones_own():
    model = make(Residual)
    groups = trace_groups(model, EXAMPLE)
    plan = random_plan(groups)
    ChannelMask(model, groups, plan).apply()
    seen = []

    def forward(net, inputs):
        seen.append(type(inputs))
        return {"scores": net(inputs["image"])}

    exact_cut(model, groups, plan, {"image": EXAMPLE}, forward)
    assert seen == [dict, dict]
