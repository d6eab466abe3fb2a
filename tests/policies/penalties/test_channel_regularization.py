import json
from functools import partial

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.group_scores import norm_members
from lightning_prune.policies.penalties.bn_scale_penalty import BNScalePenalty
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.penalties.group_norm_penalty import GroupNormPenalty
from lightning_prune.policies.penalties.group_norms import group_norms
from lightning_prune.surgery.cut import cut_channels
from tests.golden_vectors import GoldenVectors
from tests.networks import (
    EXAMPLE,
    NETWORKS,
    Chain,
    Concat,
    Depthwise,
    Residual,
    conv_bn,
    make,
    random_plan,
)
from tests.policies.penalty_cases import (
    gradients,
    norms_by_loop,
    penalty_by_loop,
    torch_pruning_pruner,
    zero_gradients,
)
from tests.policies.specs import SpecNet


class Volume(nn.Module):
    """Conv3d, Conv1d, transposed convolutions, an instance norm, a flattened reader."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.InstanceNorm3d(6, affine=True)
        self.up = nn.ConvTranspose3d(6, 5, (1, 2, 2), stride=(1, 2, 2))
        self.two = nn.Conv1d(5, 7, 3, padding=1)
        self.back = nn.ConvTranspose1d(7, 4, 1)
        self.linear = nn.Linear(4 * 16, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.one(x[:, :, None])))
        x = torch.relu(self.two(torch.relu(self.up(x)).mean(2).flatten(2)[..., :16]))
        return self.head(torch.relu(self.linear(self.back(x).flatten(1))))


class PlainConcat(nn.Module):
    """Two branches of different width, concatenated, read by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 6), conv_bn(3, 10)
        self.fuse, self.other = conv_bn(16, 8), conv_bn(16, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head((self.fuse(x) + self.other(x)).mean((2, 3)))


def added(model: nn.Module, regularization: ChannelRegularization) -> dict[str, Tensor]:
    zero_gradients(model)
    regularization.apply()
    return gradients(model)


def assert_equal(
    found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-5, atol: float = 1e-6
) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value.double(),
            expected[name].double(),
            rtol=rtol,
            atol=atol,
            msg=partial("{}: {}".format, name),
        )


# --- golden vectors -----------------------------------------------------------------------------

SPECS = ["chain_conv_bn", "chain_no_bn_bias", "residual", "concat", "depthwise"]


@pytest.mark.parametrize("name", SPECS)
def test_golden_gradients_and_importances(golden_vectors: GoldenVectors, name: str) -> None:
    content = json.loads((golden_vectors / "06_channel_reg.json").read_text())[name]
    arrays = np.load(golden_vectors / "06_channel_reg.npz")
    net = SpecNet(content["spec"])
    state = {
        k: torch.tensor(arrays[f"{name}|param|{k}"]) for k in net.state_dict() if "num" not in k
    }
    net.load_state_dict(state, strict=False)
    groups = trace_groups(net, torch.zeros(content["spec"]["input_shape"]))
    for variant, expected in content["variants"].items():
        by_root = {}
        for group in expected["groups"]:
            found = [g for g in groups.values() if group["root"] in [m.layer for m in g.members]]
            by_root[next(g.name for g in found if group["root"] not in g.layers("consumer"))] = (
                group
            )
        assert set(by_root) == set(groups) or "listed" in variant
        alpha = float(np.log2(expected["alpha"]))
        regularization = ChannelRegularization(
            net, groups, list(by_root), GroupNormPenalty(alpha), reg=expected["reg"]
        )
        for parameter, grad in added(net, regularization).items():
            if parameter in expected["zero_added_grad"]:
                assert not grad.any(), parameter
            else:
                key = f"{name}|{variant}|added_grad|{parameter}"
                np.testing.assert_allclose(grad, arrays[key], rtol=1e-5, atol=1e-8)
        # torch-pruning: the mean square over the layers, divided by its mean over the channels.
        for root, norms in regularization.norms().items():
            order = by_root[root]["importance"]
            square = norms.square() / norms.square().mean()
            np.testing.assert_allclose(sorted(square), sorted(order), rtol=1e-5)


# --- torch-pruning, live ------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Chain, Residual, PlainConcat, Depthwise])
def test_equals_group_norm_pruner(network: type[nn.Module]) -> None:
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    found = added(net, ChannelRegularization(net, groups, reg=5e-3))
    pruner = torch_pruning_pruner(tp.pruner.GroupNormPruner, net, EXAMPLE, groups, reg=5e-3)
    zero_gradients(net)
    pruner.regularize(net, alpha=2**4)
    assert_equal(found, gradients(net), atol=1e-6)
    assert sum(float(g.abs().sum()) for g in found.values()) > 1


def raw_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    assert isinstance(network, YOLOv8)
    return network.raw_maps(images)


def test_equals_group_norm_pruner_on_yolov8() -> None:
    torch.manual_seed(0)
    net = YOLOv8("n", num_classes=4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -0.5, 1.5)
    groups = trace_groups(net, torch.zeros(1, 3, 64, 64))
    found = added(net, ChannelRegularization(net, groups, reg=5e-3))
    pruner = torch_pruning_pruner(
        tp.pruner.GroupNormPruner,
        net,
        torch.zeros(1, 3, 64, 64),
        groups,
        reg=5e-3,
        forward_fn=raw_maps,
    )
    zero_gradients(net)
    pruner.regularize(net, alpha=2**4)
    assert_equal(found, gradients(net), atol=1e-6)
    touched = [name for name, grad in found.items() if bool(grad.any())]
    assert len(touched) > 100


@pytest.mark.parametrize(
    ("network", "lasso"),
    # torch-pruning's group lasso fails on a group without a batch norm, which Depthwise has.
    [(Residual, False), (Residual, True), (PlainConcat, True), (Depthwise, False)],
)
def test_equals_bn_scale_pruner(network: type[nn.Module], lasso: bool) -> None:
    net = make(network)
    nn.init.uniform_(next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).weight, -1, 1)
    groups = trace_groups(net, EXAMPLE)
    pruner = torch_pruning_pruner(
        tp.pruner.BNScalePruner, net, EXAMPLE, groups, reg=1e-2, group_lasso=lasso
    )
    zero_gradients(net)
    pruner.regularize(net)
    expected = gradients(net)
    names = [name for name in groups if norm_members(net, groups[name])]
    found = added(net, ChannelRegularization(net, groups, names, BNScalePenalty(lasso), reg=1e-2))
    assert_equal(found, expected)
    assert all(bool(g.any()) == (g.ndim == 1 and "1.weight" in n) for n, g in found.items())


# --- plain loops --------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [*NETWORKS, Volume, PlainConcat])
def test_equals_a_loop_with_mac_reg(network: type[nn.Module]) -> None:
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    macs = MacModel.of(net, groups, EXAMPLE)
    cost = {}
    for name, group in groups.items():
        # What the network costs less when a channel is really cut out of it.
        keep = {name: torch.arange(1, group.channels)}
        narrow = make(network)
        cut_channels(narrow, groups, PruningPlan(keep, {name: group.channels}))
        cost[name] = count_macs(net, EXAMPLE) - count_macs(narrow, EXAMPLE)
    shares = macs.relative_costs(list(groups))
    for name in groups:
        assert shares[name] == pytest.approx(cost[name] / max(cost.values()), rel=1e-3)
    assert max(shares.values()) == 1
    found = added(
        net, ChannelRegularization(net, groups, reg=0.01, mac_reg=0.5, gamma=0.3, macs=macs)
    )
    strength = {name: 0.3 * (0.01 + 0.5 * shares[name]) for name in groups}
    assert_equal(found, penalty_by_loop(net, groups, strength, 4.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", [*NETWORKS, Volume])
def test_masked_channels_by_a_loop(network: type[nn.Module]) -> None:
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups, share=0.4)
    first = next(iter(groups))  # one group that no plan names
    plan = PruningPlan(
        {n: k for n, k in plan.keep.items() if n != first},
        {n: c for n, c in plan.channels.items() if n != first},
    )
    regularization = ChannelRegularization(net, groups, reg=0.1)
    regularization.set_masked(plan)
    active = {n: torch.ones(g.channels, dtype=torch.bool) for n, g in groups.items()}
    active |= {n: plan.mask(n) for n in plan.keep}
    expected = penalty_by_loop(net, groups, dict.fromkeys(groups, 0.1), 4.0, active)
    assert_equal(added(net, regularization), expected, rtol=1e-4)
    for name, norms in regularization.norms().items():
        assert len(norms) == int(active[name].sum())
    regularization.set_masked(PruningPlan())
    expected = penalty_by_loop(net, groups, dict.fromkeys(groups, 0.1), 4.0)
    assert_equal(added(net, regularization), expected, rtol=1e-4)


@pytest.mark.parametrize("network", [*NETWORKS, Volume])
def test_norms_by_a_loop(network: type[nn.Module]) -> None:
    net = make(network)
    groups = trace_groups(net, EXAMPLE)
    found = group_norms(net, groups)
    assert list(found) == list(groups)
    for name, group in groups.items():
        assert found[name].tolist() == pytest.approx(norms_by_loop(net, group), rel=1e-6)


def test_selected_groups_only() -> None:
    net = make(Concat)
    groups = trace_groups(net, EXAMPLE)
    some = list(groups)[1:3]
    found = added(net, ChannelRegularization(net, groups, some, reg=0.1))
    assert_equal(found, penalty_by_loop(net, groups, dict.fromkeys(some, 0.1), 4.0), rtol=1e-4)
    assert list(group_norms(net, groups, some)) == some


# --- a live model -------------------------------------------------------------------------------


def test_equal_importances_shrink_alike() -> None:
    net = make(Residual)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.3)
    groups = trace_groups(net, EXAMPLE)
    found = added(net, ChannelRegularization(net, groups, ["a1.0"], reg=0.1))
    torch.testing.assert_close(found["a1.0.weight"], 0.1 * net.a1[0].weight.detach())
    torch.testing.assert_close(found["a1.1.weight"], 0.1 * net.a1[1].weight.detach())


def test_double_and_float_agree() -> None:
    net = make(Concat)
    groups = trace_groups(net, EXAMPLE)
    single = added(net, ChannelRegularization(net, groups, reg=0.1))
    net.double()
    assert_equal(single, added(net, ChannelRegularization(net, groups, reg=0.1)), rtol=1e-4)


def test_follows_the_model() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    regularization = ChannelRegularization(net, groups, reg=0.1)
    added(net, regularization)

    def expected() -> dict[str, Tensor]:
        return penalty_by_loop(net, groups, dict.fromkeys(groups, 0.1), 4.0)

    net.stem[0].weight = nn.Parameter(torch.randn_like(net.stem[0].weight))
    assert_equal(added(net, regularization), expected(), rtol=1e-4)
    net.to(memory_format=torch.channels_last)
    assert_equal(added(net, regularization), expected(), rtol=1e-4)
    net.double()
    assert_equal(added(net, regularization), expected(), rtol=1e-4)
    net.float()
    with torch.no_grad():
        net.b1[0].weight.mul_(3)
    assert_equal(added(net, regularization), expected(), rtol=1e-4)


def test_frozen_and_foreign_parameters_are_left_alone() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    regularization = ChannelRegularization(net, groups, reg=0.1)
    whole = added(net, regularization)
    zero_gradients(net)
    net.stem[0].weight.requires_grad_(False)
    net.a1[0].weight.grad = None
    allowed = {id(p) for n, p in net.named_parameters() if not n.startswith("b")}
    regularization.apply(allowed)
    found = gradients(net)
    assert "a1.0.weight" not in found
    for name, grad in found.items():
        if name == "stem.0.weight" or name.startswith("b"):
            assert not grad.any(), name
        else:
            torch.testing.assert_close(grad, whole[name])
    assert found["a2.0.weight"].any()


def test_loss_scale_and_not_finite_gradients() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    regularization = ChannelRegularization(net, groups, reg=0.1)
    plain = added(net, regularization)
    zero_gradients(net)
    regularization.apply(scale=torch.tensor(65536.0))
    for name, grad in gradients(net).items():
        torch.testing.assert_close(grad / 65536, plain[name])
    net.stem[0].weight.grad.fill_(torch.nan)
    before = net.stem[0].weight.detach().clone()
    regularization.apply()
    assert bool(net.stem[0].weight.grad.isnan().all())
    assert torch.equal(net.stem[0].weight, before)
    assert all(bool(g.isfinite().all()) for n, g in gradients(net).items() if n != "stem.0.weight")


def test_half_precision_is_finite() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    expected = added(net, ChannelRegularization(net, groups, reg=5e-3))
    net.half()
    with torch.no_grad():
        net.b2[0].weight.mul_(300)  # squares beyond the range of float16
        net.b2[0].weight.div_(300)
    assert_equal(
        added(net, ChannelRegularization(net, groups, reg=5e-3)), expected, rtol=0.02, atol=1e-5
    )


def test_a_cut_model_needs_new_groups() -> None:
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    regularization = ChannelRegularization(net, groups, reg=0.1)
    cut_channels(net, groups, random_plan(groups))
    zero_gradients(net)
    with pytest.raises(RuntimeError, match=r"the model was cut; build the groups .* again"):
        regularization.apply()
    groups = trace_groups(net, EXAMPLE)
    found = added(net, ChannelRegularization(net, groups, reg=0.1))
    expected = penalty_by_loop(net, groups, dict.fromkeys(groups, 0.1), 4.0)
    assert_equal(found, expected, rtol=1e-4)


def test_descends_the_norms_of_weak_channels_first() -> None:
    net = make(PlainConcat)
    groups = trace_groups(net, EXAMPLE)
    regularization = ChannelRegularization(net, groups, ["left.0"], reg=0.05)
    before = regularization.norms()["left.0"]
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(20):
        zero_gradients(net)
        regularization.apply()
        optimizer.step()
    left = regularization.norms()["left.0"] / before
    assert bool((left < 0.8).all())
    order = before.argsort()
    assert float(left[order[0]]) < 0.1 < float(left[order[-1]])
    assert regularization.summary(0.2)[1] > 0


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"reg": -1.0}, {"mac_reg": -0.1}, {"gamma": float("nan")}])
def test_wrong_strengths(wrong: dict[str, float]) -> None:
    net = make(Chain)
    with pytest.raises(
        ValueError, match=f"{next(iter(wrong))}=.*: pass a number of at least 0, a strength"
    ):
        ChannelRegularization(net, trace_groups(net, EXAMPLE), **wrong)


def test_mac_reg_needs_macs() -> None:
    net = make(Chain)
    with pytest.raises(ValueError, match="needs the MACs of the network"):
        ChannelRegularization(net, trace_groups(net, EXAMPLE), mac_reg=0.1)


def test_a_penalty_without_effect() -> None:
    net = make(Chain)
    with pytest.raises(ValueError, match=r"BNScalePenalty has no effect on any of the 3 groups"):
        ChannelRegularization(net, trace_groups(net, EXAMPLE), penalty=BNScalePenalty())
    net = make(Concat)
    with pytest.warns(UserWarning, match=r"no effect on 1 groups: 'up' \(it has no BatchNorm"):
        ChannelRegularization(net, trace_groups(net, EXAMPLE), penalty=BNScalePenalty())


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), 1000.0])
def test_wrong_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha="):
        GroupNormPenalty(alpha)
