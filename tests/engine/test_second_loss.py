import pytest
import torch
from torch import nn

from lightning_prune.engine.dense_twin import DenseTwin
from lightning_prune.engine.kept_features import feature_loss, kept_channels
from lightning_prune.engine.output_agreement import relative_error
from lightning_prune.engine.second_loss import SecondLoss, plain_output_loss
from lightning_prune.functional.softened import softened_divergence
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.scramble import scramble


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    scramble(net)
    return net


PLAN = PruningPlan(
    {"0": torch.tensor([0, 2, 3, 7]), "3": torch.tensor([1, 2, 5])}, {"0": 8, "3": 6}
)
BATCH = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1)), torch.arange(4)


def loss_of(module: nn.Module, dense: nn.Module, channels, outputs=1.0, features=1.0):
    loss = SecondLoss(module, DenseTwin(dense), None, outputs, features, 4.0)
    loss.channels = channels
    with loss.recording():
        module(BATCH[0])
    return loss(BATCH)


def by_hand(module: nn.Module, dense: nn.Module, plan: PruningPlan, is_cut: bool) -> float:
    """Outputs by torch's own divergence, features by loops over channels."""
    seen = []
    for net in (module, dense.eval()):
        x, features = BATCH[0], {}
        for name, layer in net.named_children():
            x = layer(x)
            if isinstance(layer, nn.BatchNorm2d):
                features[name] = x
        seen.append((x, features))
    total = (
        nn.functional.kl_div(
            (seen[0][0] / 4).log_softmax(1), (seen[1][0] / 4).softmax(1), reduction="batchmean"
        )
        * 16
    )
    for norm, group in (("1", "0"), ("4", "3")):
        kept = plan.keep.get(group, torch.arange(plan.channels.get(group, 0))).tolist()
        own = [seen[0][1][norm][:, i if is_cut else c] for i, c in enumerate(kept)]
        theirs = [seen[1][1][norm][:, c] for c in kept]
        off = torch.stack([(a - b).square().mean() for a, b in zip(own, theirs, strict=True)])
        spread = [
            torch.stack([(v - v.mean()).square().mean() for v in some]).mean()
            for some in (own, theirs)
        ]
        total = total + off.mean() / max(spread) / 2
    return total.item()


def channels(plan: PruningPlan, is_cut: bool):
    groups = trace_groups(network(), BATCH[0])
    kept = kept_channels({"1": 8, "4": 6}, groups, plan)
    return {n: (torch.arange(len(k)) if is_cut else k, k) for n, k in kept.items()}


@pytest.mark.parametrize("training", [False, True])
def test_masked_and_cut_networks_by_hand(training: bool):
    dense, masked = network(), network()
    groups = trace_groups(masked, BATCH[0])
    ChannelMask(masked, groups, PLAN).apply()
    cut = copy_module(masked)
    cut_channels(cut, groups, PLAN)
    for net, is_cut in ((masked, False), (cut, True)):
        net.train(training)
        found = loss_of(net, dense, channels(PLAN, is_cut)).detach()
        assert found.item() == pytest.approx(by_hand(net, dense, PLAN, is_cut), rel=1e-4)
    both = [
        loss_of(net.train(training), dense, channels(PLAN, c))
        for net, c in ((masked, False), (cut, True))
    ]
    assert torch.allclose(*both, rtol=1e-4)


def test_the_dense_network_itself_has_no_loss():
    dense = network()
    whole = PruningPlan({n: torch.arange(c) for n, c in PLAN.channels.items()}, PLAN.channels)
    found = loss_of(network().eval(), dense, channels(whole, True))
    assert found.item() == pytest.approx(0.0, abs=1e-10)


def test_weights_weigh():
    dense, own = network(), network()
    with torch.no_grad():
        own[0].weight.mul_(1.1)
    parts = [loss_of(own.eval(), dense, channels(PLAN, False), o, f) for o, f in ((1, 0), (0, 1))]
    both = loss_of(own, dense, channels(PLAN, False), 0.5, 3.0)
    assert min(part.item() for part in parts) > 0
    assert torch.allclose(both, 0.5 * parts[0] + 3.0 * parts[1])


def test_outputs_that_are_no_class_scores_by_their_relative_error():
    outputs, dense = torch.randn(4, 3), torch.randn(4, 3)
    expected = relative_error(outputs, dense)
    assert torch.equal(plain_output_loss(outputs, dense, (None, torch.randn(4)), 4.0), expected)
    # A single number, such as a loss, is left out.
    given = {"loss": torch.tensor(1.0), "out": outputs}, {"loss": torch.tensor(9.0), "out": dense}
    assert torch.equal(plain_output_loss(*given, None, 4.0), expected)


def test_class_scores_of_pixels():
    scores, dense = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = plain_output_loss(scores, dense, (None, torch.zeros(2, 4, 4, dtype=torch.long)), 2.0)
    assert torch.equal(found, softened_divergence(scores, dense, 2.0))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shapes \[\(2, 3\)\], those of the dense network"):
        plain_output_loss(torch.zeros(2, 3), torch.zeros(2, 4), None, 4.0)


def test_a_dense_network_without_variance_does_not_drown_the_rest():
    own = {"a": torch.tensor([[1.0], [3.0]])}
    dense = {"a": torch.tensor([[0.0], [0.0]])}
    kept = {"a": torch.tensor([0])}
    assert feature_loss(own, dense, kept).item() > 1e9
    assert feature_loss(own, dense, kept, bounded=True).item() == 5.0  # (1 + 9) / 2 over 1
