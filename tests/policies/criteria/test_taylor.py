import pytest
import torch

from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.taylor import Taylor
from tests.policies.fixtures import residual


def test_weights_times_gradients_by_hand():
    net, groups = residual()
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    first, second = net.a1[0].weight, net.a2[0].weight
    expected = (first * first.grad).abs().sum((1, 2, 3)) + (second * second.grad).abs().sum(
        (0, 2, 3)
    )
    found = Taylor().importance(Evidence(net, groups["a1.0"]))
    torch.testing.assert_close(found, expected.detach().double() / 2)


def test_the_channel_that_the_loss_misses_most_stays():
    """The loss reads channel 2 of the inner layer alone."""
    net, groups = residual()
    net.eval()
    with torch.no_grad():
        net.a2[0].weight[:, [c for c in range(6) if c != 2]] *= 1e-4
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert Taylor().choose(Evidence(net, groups["a1.0"]), 1).tolist() == [2]


def test_gradients_are_asked_for():
    assert Taylor.needs == {"gradients"}
    net, groups = residual()
    with pytest.raises(ValueError, match="needs the loss differentiated before"):
        Taylor().importance(Evidence(net, groups["a1.0"]))
