import pytest
import torch

from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.taylor import Taylor
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.sequential import SequentialSelection
from tests.networks import Chain, make
from tests.policies.fixtures import residual


class Given(Criterion):
    def __init__(self, *values):
        self.values = torch.tensor(values)

    def importance(self, evidence):
        return self.values


@pytest.mark.parametrize(
    ("values", "width", "kept"),
    [
        ((1.0, 5.0, 3.0, 4.0), 2, [1, 3]),
        ((2.0, 2.0, 2.0, 2.0), 3, [0, 1, 2]),  # the first on ties
        ((1, 3, 3, 0), 1, [1]),
        ((1.0, 2.0), 2, [0, 1]),
    ],
)
def test_the_most_important_stay_sorted(values, width, kept):
    _, groups = residual()
    keep = Given(*values).choose(Evidence(None, groups["stem.0"]), width)
    assert keep.tolist() == kept
    assert keep.dtype == torch.int64


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_keeps_the_largest_filters(p):
    net, groups = residual()
    norms = net.a1[0].weight.detach().double().flatten(1).norm(p=p, dim=1)
    keep = Magnitude(p).choose(Evidence(net, groups["a1.0"]), 3)
    assert keep.tolist() == sorted(sorted(range(6), key=lambda c: -norms[c])[:3])


def test_bn_scale_keeps_the_largest_gammas():
    net, groups = residual()
    with torch.no_grad():
        net.a1[1].weight.copy_(torch.tensor([0.1, -9.0, 0.2, 3.0, -0.3, 0.0]))
    assert BNScale().choose(Evidence(net, groups["a1.0"]), 3).tolist() == [1, 3, 4]


def test_random_choice_follows_seed_and_name_alone():
    net, groups = residual()
    draw = {
        (seed, name): RandomChoice(seed).choose(Evidence(net, groups[name]), 4).tolist()
        for seed in range(6)
        for name in ("stem.0", "project.0")
    }
    torch.manual_seed(99)
    again = RandomChoice(2).choose(Evidence(make(Chain), groups["stem.0"]), 4).tolist()
    assert again == draw[2, "stem.0"]
    assert len({tuple(kept) for kept in draw.values()}) > 6
    # Known by value: a change of the draw would change published baselines.
    assert draw[0, "stem.0"] == RANDOM_STEM


def test_every_channel_is_as_likely():
    _, groups = residual()
    counts = torch.zeros(12)
    for seed in range(600):
        counts[RandomChoice(seed).choose(Evidence(None, groups["project.0"]), 6)] += 1
    # Binomial(600, 1/2): five standard deviations are 61.
    assert (counts - 300).abs().max() < 61


def test_arguments_and_groups_that_cannot_be_judged():
    with pytest.raises(ValueError, match="p=3: pass 1 or 2"):
        Magnitude(3)
    net, groups = residual()
    BNScale().check(net, groups["a1.0"])
    from lightning_prune.graph.trace import trace_groups
    from tests.networks import EXAMPLE

    chain = make(Chain)
    with pytest.raises(ValueError, match="'conv1' has no BatchNorm"):
        BNScale().check(chain, trace_groups(chain, EXAMPLE)["conv1"])


@pytest.mark.parametrize("criterion", [GroupNorm(), FPGM(), LAMP(), Taylor(), MacAware()])
def test_every_criterion_serves_the_sequential_selection(criterion):
    net, groups = residual()
    net(torch.randn(2, 3, 8, 8)).square().sum().backward()
    chooser = SequentialSelection(
        groups, tuple(groups), ChannelClusterer(embedding="pca"), criterion, (0.25, 0.5), 1
    )
    for name, group in groups.items():
        nothing = ObjectActivations(group.producers)
        decision, _ = chooser.decide(net, name, nothing, width=3)
        importance = criterion.importance(Evidence(net, group))
        assert decision.status == "pruned"
        assert decision.keep.tolist() == sorted(importance.argsort(descending=True)[:3].tolist())


RANDOM_STEM = [0, 3, 5, 7]
