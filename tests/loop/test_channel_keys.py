"""Each key of channel_sparsity_args does what it says."""

import copy

import pytest
import torch
from torch import nn

from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loop.pruning import Pruning
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.taylor import Taylor
from lightning_prune.policies.penalties.bn_scale_penalty import BNScalePenalty
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from tests.loop.plain import CHANNEL, batch, channel_pruning, masked, state_in, write
from tests.networks import EXAMPLE, Concat, Residual, make


def widths(pruner):
    return pruner.channel_pruner.plan.widths()


def expected_plan(model, ratio, criterion=None, ranking="global", **arguments):
    groups = trace_groups(model, EXAMPLE)
    macs = MacModel.of(model, groups, EXAMPLE)
    target = arguments.pop("mac_target", None)
    arguments = {"keep_range": (0.1, 1.0), "round_to": 1} | arguments
    selection = RatioSelection(
        groups, tuple(groups), macs, criterion or GroupNorm(), ranking, **arguments
    )
    return selection.select(model, ratio, target).plan


def same(plan, other):
    return plan.keep.keys() == other.keep.keys() and all(
        torch.equal(keep, other.keep[name]) for name, keep in plan.keep.items()
    )


def test_is_prune_false_leaves_everything_alone(tmp_path):
    model = make(Residual)
    pruner = Pruning(model, write(tmp_path), model.forward)
    model(batch()[0]).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    pruner.channel_regularize(model)
    for epoch in range(8):
        pruner.prune(model, epoch)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert not pruner.channel_pruner.reset_optimizer
    assert float(pruner.slice_regularize(model)) == 0


def test_the_schedule_keys(tmp_path):
    pruner = channel_pruning(
        tmp_path, start_epoch=2, end_epoch=7, epoch_rate=2, global_prune_rate=0.6
    )
    model, total, counts = pruner._model, 36, []
    lines = []
    for epoch in range(8):
        pruner.prune(model, epoch, log=lines.append)
        pruner.prune(model, epoch, log=lines.append)  # twice is as good as once
        counts.append(0 if pruner.channel_pruner.done else masked(pruner))
    ratios = [0, 0, 0.2, 0.2, 0.4, 0.4, 0.6]
    assert sum(pruner.channel_pruner.plan.channels.values()) == total
    assert counts[:7] == [pytest.approx(r * total, abs=1.0) for r in ratios]
    assert counts[2] < counts[4] < counts[6]
    steps = [line for line in lines if "ratio" in line]
    assert [line.split(":")[0] for line in steps] == ["epoch 2", "epoch 4", "epoch 6"]
    assert pruner.channel_pruner.done
    assert lines[-1].startswith("epoch 7: cut to ")


@pytest.mark.parametrize(
    ("keys", "ranking"),
    [
        ({"global_pruning": True}, "global"),
        ({"global_pruning": False}, "local"),
        ({"isomorphic": True}, "isomorphic"),
    ],
)
def test_rankings(tmp_path, keys, ranking):
    model = make(Residual)
    expected = expected_plan(model, 0.4, ranking=ranking)
    pruner = channel_pruning(tmp_path, model, end_epoch=2, global_prune_rate=0.4, **keys)
    pruner.prune(model, 1)
    assert same(pruner.channel_pruner.plan, expected)
    others = {"global", "local", "isomorphic"} - {ranking}
    fresh = make(Residual)
    assert not all(same(expected, expected_plan(fresh, 0.4, ranking=other)) for other in others)


def test_fast_widths(tmp_path):
    torch.manual_seed(0)
    wide = [nn.Sequential(nn.Conv2d(n, m, 1), nn.ReLU()) for n, m in ((3, 40), (40, 40), (40, 40))]
    model = nn.Sequential(*wide, nn.Conv2d(40, 2, 1))
    fast = FastWidths(vector=8, max_shift=0.5)
    plain = expected_plan(model, 0.4)
    expected = expected_plan(model, 0.4, fast_widths=fast)
    keys = {"fast_widths": {"vector": 8, "max_shift": 0.5}}
    pruner = channel_pruning(tmp_path, model, end_epoch=2, global_prune_rate=0.4, **keys)
    pruner.prune(model, 1)
    assert same(pruner.channel_pruner.plan, expected)
    assert not same(plain, expected)


def test_block_size_and_cap(tmp_path):
    pruner = channel_pruning(tmp_path, block_size=2, max_pruning_rate=0.5, global_prune_rate=0.9)
    for epoch in range(5):
        pruner.prune(pruner._model, epoch)
        assert all(width % 2 == 0 for width in widths(pruner).values())
    plan = pruner.channel_pruner.plan
    assert all(2 * width >= plan.channels[name] for name, width in widths(pruner).items())
    assert masked(pruner) > 0


def test_global_prune_rate(tmp_path):
    few = channel_pruning(tmp_path, end_epoch=2, global_prune_rate=0.2)
    few.prune(few._model, 1)
    many = channel_pruning(tmp_path, end_epoch=2, global_prune_rate=0.6)
    many.prune(many._model, 1)
    assert masked(few) == pytest.approx(0.2 * 36, abs=1)
    assert masked(many) == pytest.approx(0.6 * 36, abs=1)


@pytest.mark.parametrize("target", [0.7, 0.4])
def test_mac_target_is_met_from_below(tmp_path, target):
    model = make(Residual)
    dense = count_macs(model, EXAMPLE)
    keys = {k: v for k, v in CHANNEL.items() if k != "global_prune_rate"}
    pruner = Pruning(model, write(tmp_path, keys | {"mac_target": target}), model.forward)
    for epoch in range(7):
        pruner.prune(model, epoch)
        if pruner.channel_pruner.done:
            break
    assert target - 0.03 < count_macs(model, EXAMPLE) / dense <= target
    state = state_in(tmp_path)
    assert state["reach_mac_target"] is True
    assert f"(target {target:.1%})" in state["log_str"]


def test_an_unreachable_target_is_an_error_at_once(tmp_path):
    with pytest.raises(ValueError, match="cannot be reached"):
        channel_pruning(tmp_path, mac_target=0.05, max_pruning_rate=0.3)


def test_a_schedule_that_misses_the_target_says_so(tmp_path):
    pruner = channel_pruning(tmp_path, mac_target=0.3, global_prune_rate=0.1, end_epoch=2)
    pruner.prune(pruner._model, 1)
    with pytest.warns(UserWarning, match="MAC target unmet"):
        pruner.prune(pruner._model, 2)
    assert pruner.channel_pruner.done


METHODS = {
    "GroupNormPruner": GroupNorm(), "GroupNormImportance": GroupNorm(),
    "GroupMagnitudeImportance": GroupNorm(), "BNScalePruner": BNScale(),
    "BNScaleImportance": BNScale(), "MagnitudePruner": Magnitude(2),
    "MagnitudeImportance": Magnitude(2), "FPGMImportance": FPGM(), "LAMPImportance": LAMP(),
    "TaylorImportance": Taylor(), "RandomImportance": RandomChoice(),
    "MACAwareImportance": MacAware(),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_pruning_method(tmp_path, method):
    model = make(Residual)
    model(batch()[0]).square().sum().backward()
    expected = expected_plan(model, 0.3, METHODS[method])
    pruner = channel_pruning(
        tmp_path, model, end_epoch=2, global_prune_rate=0.3, pruning_method=method
    )
    pruner.prune(model, 1)
    assert same(pruner.channel_pruner.plan, expected)
    assert masked(pruner) > 0


def test_methods_differ():
    model = make(Residual)
    model(batch()[0]).square().sum().backward()
    kinds = {type(criterion): criterion for criterion in METHODS.values()}
    plans = [expected_plan(model, 0.3, criterion) for criterion in kinds.values()]
    assert len({str([k.tolist() for k in plan.keep.values()]) for plan in plans}) >= 5


def test_taylor_needs_gradients(tmp_path):
    pruner = channel_pruning(tmp_path, pruning_method="TaylorImportance")
    with pytest.raises(ValueError, match=r"call prune\(\) after loss\.backward"):
        pruner.prune(pruner._model, 1)


@pytest.mark.parametrize("at", ["prune_channels_at_init", "infer"])
def test_cut_before_the_first_epoch(tmp_path, at):
    model = make(Residual)
    dense = count_macs(model, EXAMPLE)
    expected = expected_plan(make(Residual), 1.0, mac_target=0.5)
    keys = {at: True, "mac_target": 0.5, "global_prune_rate": 1.0}
    pruner = channel_pruning(tmp_path, model, **keys)
    assert 0.45 < count_macs(model, EXAMPLE) / dense <= 0.5
    assert pruner.channel_pruner.reset_optimizer
    assert same(pruner.channel_pruner.plan, expected)
    assert state_in(tmp_path)["reach_mac_target"] is True
    lines = []
    pruner.prune(model, 0, log=lines.append)
    assert any("cut to" in line for line in lines)


def gradients_after(pruner, scale=None):
    model = pruner._model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.channel_regularize(model, scale)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("strength", "method", "penalty"),
    [
        ({"reg": 0.01}, "GroupNormPruner", None),
        ({"reg": 0.01, "gamma": 0.5}, "GroupNormPruner", None),
        ({"reg": 0.01, "mac_reg": 0.1}, "LAMPImportance", None),
        ({"reg": 0.01}, "BNScalePruner", BNScalePenalty()),
    ],
)
def test_regularize_adds_the_penalty(tmp_path, strength, method, penalty):
    pruner = channel_pruning(tmp_path, regularize=strength, pruning_method=method)
    found = gradients_after(pruner)
    model = make(Residual)
    groups = trace_groups(model, EXAMPLE)
    macs = MacModel.of(model, groups, EXAMPLE)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ChannelRegularization(model, groups, None, penalty, macs=macs, **strength).apply()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients_after(pruner, scale=64.0), 64 * expected)


def test_a_penalty_without_strength_says_so(tmp_path):
    with pytest.warns(UserWarning, match="channel_regularize has no effect"):
        gradients_after(channel_pruning(tmp_path, regularize={}))


@pytest.mark.parametrize(
    ("params", "criterion"),
    [
        ({"use_macs": False}, GroupNorm()),
        ({"type": "Mul", "beta": 1}, MacAware(aggregation="mul", beta=1.0)),
        ({"use_macs": True, "type": "Sum", "alpha": 0.2}, MacAware(alpha=0.2)),
    ],
)
def test_mac_params(tmp_path, params, criterion):
    model = make(Residual)
    pruner = channel_pruning(
        tmp_path, model, end_epoch=2, pruning_method="MACAwareImportance", MAC_params=params
    )
    expected = expected_plan(model, 0.5, criterion)
    pruner.prune(model, 1)
    assert same(pruner.channel_pruner.plan, expected)


def test_use_macs_weighs_any_method(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(
        tmp_path, model, end_epoch=2, pruning_method="MagnitudePruner",
        MAC_params={"use_macs": True, "alpha": 0.5},
    )  # fmt: skip
    expected = expected_plan(model, 0.5, MacAware(Magnitude(2), alpha=0.5))
    pruner.prune(model, 1)
    assert same(pruner.channel_pruner.plan, expected)


def test_layers(tmp_path):
    pruner = channel_pruning(tmp_path, layers=["b1.0"], end_epoch=2)
    pruner.prune(pruner._model, 1)
    assert widths(pruner) == {"b1.0": 5}
    assert set(channel_pruning(tmp_path, layers=[]).channel_pruner.names) == {
        "stem.0", "a1.0", "b1.0", "project.0",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"no layer 'b11\.0'.*did you mean 'b1\.0'"):
        channel_pruning(tmp_path, layers=["b11.0"])


class Two(torch.nn.Module):
    """Takes its two inputs in one container, and remembers which."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(5, 4)
        self.head = torch.nn.Linear(4, 2)
        self.seen = None

    def forward(self, inputs):
        self.seen = type(inputs)
        return self.head(torch.relu(self.a(inputs[0]) + self.b(inputs[1])))


@pytest.mark.parametrize(("container", "kind"), [(None, list), ("list", list), ("tuple", tuple)])
def test_several_inputs_and_their_container(tmp_path, container, kind):
    model = Two()
    pruner = channel_pruning(
        tmp_path, model, input_shape=[[2, 3], [2, 5]], container=container, end_epoch=2
    )
    assert model.seen is kind
    pruner.prune(model, 1)
    pruner.prune(model, 2)
    assert (model.a.out_features, model.b.out_features, model.head.in_features) == (2, 2, 2)


def test_transposed_convolutions_are_pruned(tmp_path):
    model = make(Concat)
    pruner = channel_pruning(tmp_path, model, layers=["up"], end_epoch=2)
    pruner.prune(model, 1)
    pruner.prune(model, 2)
    assert model.up.out_channels == 3
