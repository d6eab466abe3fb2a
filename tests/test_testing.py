import pytest
import torch
from torch import nn

from lightning_prune import testing
from lightning_prune.graph.macs import count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery import masked_outputs
from lightning_prune.testing import check_prunable
from tests.networks import EXAMPLE, NETWORKS, Chain, Residual, make


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_sound_networks_pass_and_are_left_alone(network, ratio):
    net = make(network).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(4)
    state = torch.get_rng_state()
    found = check_prunable(net, EXAMPLE, ratio)
    groups = trace_groups(net, EXAMPLE)
    assert (found.groups, found.refused) == (len(groups), groups.refused)
    assert found.macs_before == count_macs(net, EXAMPLE) > found.macs_after > 0
    assert 0 <= found.difference <= 1e-5
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_fraction_is_what_goes():
    net = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Conv2d(10, 2, 1))
    for ratio, left in ((0.1, 9), (0.5, 5), (0.99, 1)):
        found = check_prunable(net, EXAMPLE, ratio)
        assert found.macs_after == 64 * left * (3 + 2)


def test_tuples_dicts_and_integers_are_inputs():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.first, self.last = nn.Linear(4, 9), nn.Linear(9, 3)

        def forward(self, index, scale):
            return self.last(torch.relu(self.first(self.table(index) * scale)))

    index = torch.tensor([[1, 6, 2]])
    for example in ((index, torch.ones(1)), {"scale": torch.ones(1), "index": index}):
        assert check_prunable(Embedded(), example).groups == 2  # the table's columns, and first


@pytest.mark.parametrize("wrong", [0.25, float("nan"), float("inf")])
def test_a_difference_is_an_error_whatever_its_value(monkeypatch, wrong):
    outputs = iter([[torch.ones(3)], [torch.tensor([1.0, 1.0 + wrong, 1.0])]] * 2)
    monkeypatch.setattr(masked_outputs, "eval_outputs", lambda *_: next(outputs))
    with pytest.raises(AssertionError, match="differs from the masked one"):
        check_prunable(make(Residual), EXAMPLE)


def test_other_macs_than_predicted_are_an_error(monkeypatch):
    monkeypatch.setattr(testing, "count_macs", lambda *_: 1)
    with pytest.raises(AssertionError, match="has 1 MACs, predicted were"):
        check_prunable(make(Residual), EXAMPLE)


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.2])
def test_the_ratio_is_a_fraction(ratio):
    with pytest.raises(ValueError, match=r"outside \(0, 1\)"):
        check_prunable(make(Chain), EXAMPLE, ratio)


def test_another_seed_is_another_choice():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Tanh(), nn.Conv2d(16, 2, 1))
    kept = []
    original = testing.cut_channels

    def spy(model, groups, plan):
        kept.append(plan.keep["0"].tolist())
        return original(model, groups, plan)

    testing.cut_channels = spy
    try:
        for seed in (0, 0, 1):
            check_prunable(net, EXAMPLE, seed=seed)
    finally:
        testing.cut_channels = original
    assert kept[0] == kept[1] != kept[2]


def test_the_table_says_of_each_layer_what_becomes_of_it():
    notes = []
    found = check_prunable(make(Residual), EXAMPLE, notify=notes.append, nan_classes=6)
    assert [(row.layer, row.group, row.channels, row.kept) for row in found.layers] == [
        ("stem.0", "stem.0", 8, 4),
        ("a1.0", "a1.0", 6, 3),
        ("a2.0", "stem.0", 8, 4),
        ("project.0", "project.0", 12, 6),
        ("b1.0", "b1.0", 10, 5),
        ("b2.0", "project.0", 12, 6),
        ("head", "", 0, 0),
    ]
    assert sum(row.macs_fraction for row in found.layers) == pytest.approx(1)
    assert found.nan is not None
    assert found.nan.classes == 6
    text = str(found)
    assert "refused: its channels reach the output of the model" in text
    assert f"{found.macs_before} MACs before, {found.macs_after} after" in text
    assert "NaN in 6 channels reached" in text
    assert notes == [
        "finding the groups of channels",
        "following 6 channels with NaN",
        "masking and cutting 50% of the channels of 4 groups",
    ]


def test_branches_that_start_at_zero_hide_no_fault(monkeypatch):
    """The weights that are tried are others: a wrong cut behind a zero would show."""
    net = make(Residual)
    nn.init.zeros_(net.a2[1].weight)
    nn.init.zeros_(net.a2[1].bias)
    seen = []
    original = testing.cut_channels

    def spy(model, groups, plan):
        seen.append(bool(model.a2[1].weight.any()))
        return original(model, groups, plan)

    monkeypatch.setattr(testing, "cut_channels", spy)
    check_prunable(net, EXAMPLE)
    check_prunable(net, EXAMPLE, scrambled=False)
    assert seen == [True, False]


def test_a_channel_in_other_places_than_claimed_is_an_error(monkeypatch):
    wrong = testing.NanMismatch("stem.0", 2, "head.weight", (1,), (2,))
    report = testing.NanReport(1, 0, 0, (wrong,), {})
    monkeypatch.setattr(testing, "nan_oracle", lambda *_: report)
    with pytest.raises(AssertionError, match=r"head.weight: claimed \[1\], observed \[2\]"):
        check_prunable(make(Residual), EXAMPLE, nan_classes=1)
