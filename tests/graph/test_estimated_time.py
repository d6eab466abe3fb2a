import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.estimated_time import estimated_time
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, make, random_plan


def by_hand(net, wide, vector, moved):
    """Count the cut network layer by layer; `wide` says which ends the dense one has groups at."""
    took = []

    def hook(name):
        def see(layer, inputs, output):
            out, into = output.shape[1], inputs[0].shape[1]
            # A transposed convolution writes each kernel at every pixel that it reads.
            every = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            pixels = every[0, 0].numel()
            kernel = math.prod(getattr(layer, "kernel_size", (1,)))
            depthwise = getattr(layer, "groups", 1) > 1
            whole_out = math.ceil(out / vector) * vector if wide[name][0] else out
            whole_in = math.ceil(into / vector) * vector if wide[name][1] else into
            took.append(pixels * kernel * whole_out * (1 if depthwise else whole_in))
            took.append(moved * (output.numel() + inputs[0].numel()))

        return see

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(hook(name))
    with torch.no_grad():
        net.eval()(EXAMPLE)
    return sum(took)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("vector", "moved"), [(1, 0.0), (4, 3.0), (16, 100.0)])
def test_it_is_the_count_over_the_layers_of_the_cut_network(network, vector, moved):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    assert "" not in macs.layers
    names = tuple(groups)
    plan = random_plan(groups, share=0.6)
    time = estimated_time(macs, names, vector, moved)
    widths = np.array([[plan.widths()[name] for name in names]], dtype=float)
    ends = {layer: (layer in macs.outputs, layer in macs.inputs) for layer in macs.layers}
    cut_channels(net, groups, plan)
    assert time(widths)[0] == pytest.approx(by_hand(net, ends, vector, moved))


@pytest.mark.parametrize("network", NETWORKS)
def test_without_vectors_and_moves_time_is_macs(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    names = tuple(groups)[::2]
    time = estimated_time(macs, names, 1, 0.0)
    widths = [max(1, groups[name].channels // 3) for name in names]
    expected = macs.remaining(dict(zip(names, widths, strict=True)))
    assert time(np.array([widths], dtype=float))[0] == pytest.approx(expected)
