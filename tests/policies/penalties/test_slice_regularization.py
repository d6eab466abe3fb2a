"""The penalty on a model: autograd of the loss term equals what is added to gradients."""

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.layers.slice_layers import slice_layers, unmasked_weights
from lightning_prune.policies.penalties.slice_regularization import SliceRegularization
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import EXAMPLE, NETWORKS, Concat, Residual, make
from tests.policies.selection.test_slice_selection import plan_of


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_term_and_added_gradient_agree(network):
    net = make(network)
    regularization = SliceRegularization(slice_layers(net, ["*"], 1), 1, 0.01)
    for value in net.parameters():
        value.grad = torch.ones_like(value)
    regularization.apply()
    added = {name: value.grad - 1 for name, value in net.named_parameters()}
    net.zero_grad()
    penalty = regularization.penalty()
    penalty.value.backward()
    assert penalty.value.item() == pytest.approx(0.01 * penalty.slices)
    for name, value in net.named_parameters():
        expected = torch.zeros_like(value) if value.grad is None else value.grad
        assert torch.allclose(added[name], expected, rtol=1e-4, atol=1e-6), name
    # block_size 1: a slice is one weight w, its gradient reg / w
    weight = next(iter(regularization.layers.values())).weight
    assert torch.allclose(weight.grad, 0.01 / weight.detach(), rtol=1e-4)


@pytest.mark.parametrize("network", [Residual, Concat])
def test_beside_a_channel_mask_it_is_that_of_the_cut_model(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    plan = plan_of(groups, {n: {0, g.channels - 1} for n, g in groups.items() if g.channels >= 6})
    ChannelMask(net, groups, plan).apply()
    regularization = SliceRegularization(slice_layers(net, None, 2), 2, 0.1)
    regularization.set_unmasked(unmasked_weights(net, groups, plan))
    masked = regularization.penalty()
    masked.value.backward()
    gradients = {n: layer.weight.grad.clone() for n, layer in regularization.layers.items()}
    pruned = cut_channels(net, groups, plan)
    regularization.set_unmasked({})
    cut = regularization.penalty()
    cut.value.backward()
    assert cut.nonzero == masked.nonzero == cut.slices
    assert cut.log_sum.item() == pytest.approx(masked.log_sum.item(), rel=1e-5)
    for name, layer in regularization.layers.items():
        replaced = pruned.parameters.get(f"{name}.weight")
        before = gradients[name] if replaced is None else replaced.select(gradients[name])
        assert torch.allclose(layer.weight.grad, before, rtol=1e-5), name
        layer.weight.grad = torch.zeros_like(layer.weight)
    regularization.apply()
    for name, layer in regularization.layers.items():
        replaced = pruned.parameters.get(f"{name}.weight")
        before = gradients[name] if replaced is None else replaced.select(gradients[name])
        assert torch.allclose(layer.weight.grad, before, rtol=1e-5), name


def test_masked_rows_get_nothing_and_odd_widths_are_passed_over():
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    plan = plan_of(groups, {"a1.0": {3}, "b1.0": {0, 1}})
    ChannelMask(net, groups, plan).apply()
    regularization = SliceRegularization(slice_layers(net, None, 2), 2, 0.1)
    regularization.set_unmasked(unmasked_weights(net, groups, plan))
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    regularization.apply()
    assert regularization.indivisible == ("a1.0",)
    assert not net.a1[0].weight.grad.any()
    assert not net.b1[0].weight.grad[:2].any()
    assert net.b1[0].weight.grad[2:].all()


def test_own_parameters_and_scale():
    net = make(Residual)
    regularization = SliceRegularization(slice_layers(net, None, 2), 2, 0.1)
    own = {id(net.stem[0].weight)}
    added = []
    for scale in (None, torch.tensor(8.0)):
        for value in net.parameters():
            value.grad = torch.zeros_like(value)
        regularization.apply(own, scale)
        assert not net.a1[0].weight.grad.any()
        added.append(net.stem[0].weight.grad.clone())
    assert torch.equal(added[1], 8 * added[0])


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="reg=-1"):
        SliceRegularization({}, 2, -1)
    nothing = SliceRegularization({}, 2, 1).penalty()
    assert (nothing.value.item(), nothing.slices) == (0, 0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_zero_slices_get_nothing_in_half_precision(kind):
    """The pull on them, reg / 1e-8, is beyond float16: times zero it must not become NaN."""
    net = make(Concat).to(kind)
    with torch.no_grad():
        net.fuse[0].weight[:, 0] = 0
    regularization = SliceRegularization(slice_layers(net, None, 2), 2, 0.1)
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    regularization.apply()
    for layer in regularization.layers.values():
        assert layer.weight.grad.dtype == kind
        assert bool(layer.weight.grad.isfinite().all())
    assert not net.fuse[0].weight.grad[:, 0].any()
    assert net.fuse[0].weight.grad[:, 1:].any()
