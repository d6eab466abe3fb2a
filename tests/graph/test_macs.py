import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, NETWORKS, make, random_plan


def flops(net):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(EXAMPLE)
    return counter.get_total_flops()


@pytest.mark.parametrize("network", NETWORKS)
def test_count_is_half_of_the_flop_counter(network):
    net = make(network)
    assert count_macs(net, EXAMPLE) == flops(net) // 2


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_predicted_macs_are_those_of_the_cut_model(network, share):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    model = MacModel.of(net, groups, EXAMPLE)
    plan = random_plan(groups, share=share)
    predicted = model.remaining(plan.widths())
    assert model.total == flops(net) // 2
    cut_channels(net, groups, plan)
    assert predicted == flops(net) // 2


@pytest.mark.parametrize("network", NETWORKS)
def test_the_quadratic_form_equals_the_sum_over_layers(network):
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    model = MacModel.of(net, groups, EXAMPLE)
    generator = torch.Generator().manual_seed(0)
    for names in (tuple(groups), tuple(groups)[::2], tuple(groups)[:1], ()):
        cost = model.cost_of(names)
        for _ in range(20):
            widths = [
                int(torch.randint(1, groups[n].channels + 1, (), generator=generator))
                for n in names
            ]
            assert cost(widths) == model.remaining(dict(zip(names, widths, strict=True)))
