import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compensate import compensate
from lightning_prune.surgery.mask import ChannelMask
from tests.networks import Chain, Concat, Depthwise, Residual, random_plan


def forward(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)


class Consumer(nn.Module):
    """A producer of 6 channels and one consumer."""

    def __init__(self, consumer: nn.Module, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.consumer = consumer
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.consumer(torch.relu(self.first(x)))))


def least_squares(net: Consumer, x: Tensor, keep: Tensor, ridge: float, shift: bool):
    """Solve for the consumer's weights on all patches, as a stacked least-squares problem."""
    layer = net.consumer
    patches = F.unfold(
        torch.relu(net.first(x)), layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )
    rows = patches.transpose(1, 2).flatten(0, 1).double()
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    weight = layer.weight.detach().double().flatten(1)
    kept = (keep[:, None] * taps + torch.arange(taps)).flatten()
    gone = torch.tensor([i for i in range(rows.shape[1]) if i not in kept.tolist()])
    known, wanted = rows[:, kept], rows[:, gone] @ weight[:, gone].T
    size = (ridge * known.square().sum(0).mean()).sqrt() * torch.eye(len(kept)).double()
    if shift:
        known = torch.cat([known, torch.ones(len(known), 1)], 1)
        size = torch.cat([size, torch.zeros(len(kept), 1)], 1)
    stacked = torch.cat([known, size]), torch.cat([wanted, wanted.new_zeros(len(kept), 4)])
    added = torch.linalg.lstsq(*stacked).solution.T
    weight[:, kept] += added[:, : len(kept)]
    return weight.view_as(layer.weight), added[:, -1]


@pytest.mark.parametrize(
    "consumer",
    [
        nn.Conv2d(6, 4, 3, padding=1, bias=False),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(2, 1)),
        nn.Conv2d(6, 4, 1),
    ],
    ids=["plain", "strided", "pointwise"],
)
def test_weights_are_those_of_stacked_least_squares(consumer: nn.Conv2d) -> None:
    torch.manual_seed(0)
    net, x = Consumer(copy.deepcopy(consumer)), torch.randn(4, 3, 9, 8)
    keep = torch.tensor([0, 2, 5])
    shift = consumer.bias is not None
    weight, bias = least_squares(net, x, keep, 0.01, shift)
    before = copy.deepcopy(net.consumer)
    plan = PruningPlan({"first": keep}, {"first": 6})
    adjusted = compensate(
        net, trace_groups(net, x), plan, lambda: [x[:1], x[1:]], forward, positions=100
    )
    assert adjusted == ("consumer",)
    taken = net.consumer.weight.clone()
    gone = [1, 3, 4]
    assert torch.equal(taken[:, gone], before.weight[:, gone])  # masking zeroes them
    torch.testing.assert_close(taken[:, keep], weight[:, keep].float(), atol=1e-4, rtol=1e-4)
    if shift:
        torch.testing.assert_close(
            net.consumer.bias, before.bias + bias.float(), atol=1e-4, rtol=1e-4
        )


def test_double_precision_stays_double() -> None:
    torch.manual_seed(0)
    net = Consumer(nn.Conv2d(6, 4, 3, padding=1, bias=False)).double()
    x, keep = torch.randn(4, 3, 9, 8, dtype=torch.float64), torch.tensor([0, 2, 5])
    # On a copy: what is double already is worked on in place.
    weight, _ = least_squares(copy.deepcopy(net), x, keep, 0.01, shift=False)
    plan = PruningPlan({"first": keep}, {"first": 6})
    compensate(net, trace_groups(net, x), plan, lambda: [x], forward, positions=100)
    found = net.consumer.weight.detach()[:, keep]
    torch.testing.assert_close(found, weight[:, keep], atol=1e-11, rtol=1e-10)


def test_a_copy_of_a_kept_channel_is_taken_over_exactly() -> None:
    torch.manual_seed(0)
    net, x = Consumer(nn.Conv2d(6, 4, 3, padding=1)), torch.randn(8, 3, 8, 8)
    with torch.no_grad():  # channel 4 says what channel 1 says, twice as loud
        net.first.weight[4], net.first.bias[4] = 2 * net.first.weight[1], 2 * net.first.bias[1]
    wanted, groups = net(x), trace_groups(net, x)
    plan = PruningPlan({"first": torch.tensor([0, 1, 2, 3, 5])}, {"first": 6})
    compensate(net, groups, plan, lambda: [x], forward, ridge=1e-7)
    ChannelMask(net, groups, plan).apply()
    torch.testing.assert_close(net(x), wanted, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Chain, (8, 3, 8, 8)),
        (Residual, (8, 3, 8, 8)),
        (Concat, (8, 3, 8, 8)),
        (Depthwise, (8, 3, 8, 8)),
    ],
)
def test_each_consumer_alone_is_nearer_to_what_it_was(network: type, shape: tuple) -> None:
    torch.manual_seed(1)
    net, x = network().eval(), torch.randn(*shape)
    groups = trace_groups(net, x)
    plan = random_plan(groups, seed=0)
    without, given = copy.deepcopy(net), copy.deepcopy(net)
    adjusted = compensate(given, groups, plan, lambda: [x], forward, positions=10_000)
    assert adjusted
    inputs, outputs = {}, {}
    modules = dict(net.named_modules())
    for name in adjusted:
        modules[name].register_forward_hook(
            lambda m, i, o, name=name: inputs.update({name: i[0]}) or outputs.update({name: o})
        )
    net(x)
    for masked in (without, given):
        ChannelMask(masked, groups, plan).apply()
    for name in adjusted:
        wanted = outputs[name]
        # Rows that are masked are no matter: only what a consumer says in channels that stay.
        rows = dict(given.named_modules())[name].weight.flatten(1).any(1)
        mine, bare = (
            (dict(model.named_modules())[name](inputs[name]) - wanted) for model in (given, without)
        )
        if not isinstance(modules[name], nn.Linear):
            mine, bare = mine.transpose(0, 1), bare.transpose(0, 1)
        else:
            mine, bare = mine.T, bare.T
        mine, bare = mine[rows].flatten(1), bare[rows].flatten(1)
        if modules[name].bias is None:  # a norm follows, which is free to shift
            mine, bare = mine - mine.mean(1, keepdim=True), bare - bare.mean(1, keepdim=True)
        assert mine.square().sum() < bare.square().sum(), name


def test_what_an_earlier_mask_silenced_is_not_asked_again() -> None:
    torch.manual_seed(0)
    net, x = Consumer(nn.Conv2d(6, 4, 3, padding=1)), torch.randn(4, 3, 8, 8)
    groups = trace_groups(net, x)
    held = PruningPlan({"first": torch.tensor([0, 1, 2])}, {"first": 6})
    ChannelMask(net, groups, held).apply()
    before = net.consumer.weight.clone()
    assert compensate(net, groups, held, lambda: [x], forward, held=held) == ()
    plan = PruningPlan({"first": torch.tensor([0, 1])}, {"first": 6})
    assert compensate(net, groups, plan, lambda: [x], forward, held=held) == ("consumer",)
    assert torch.equal(net.consumer.weight[:, 3:], before[:, 3:])
    assert not net.consumer.weight[:, 3:].any()


def test_modes_random_state_and_statistics_stay() -> None:
    torch.manual_seed(0)
    net, x = Consumer(nn.Conv2d(6, 4, 1, bias=False), norm=True).train(), torch.randn(4, 3, 8, 8)
    groups = trace_groups(net, x)
    state, statistics = torch.random.get_rng_state(), net.norm.running_mean.clone()
    plan = PruningPlan({"first": torch.tensor([0, 3])}, {"first": 6})
    compensate(net, groups, plan, lambda: [x], forward, positions=5)
    assert net.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(net.norm.running_mean, statistics)
    assert not net.consumer._forward_pre_hooks


@pytest.mark.parametrize("wrong", [{"ridge": 0.0}, {"positions": 0}])
def test_arguments_out_of_range(wrong: dict) -> None:
    net, x = Chain(), torch.randn(1, 3, 8, 8)
    groups = trace_groups(net, x)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        compensate(net, groups, PruningPlan(), lambda: [x], forward, **wrong)


def test_processes_that_share_the_images_agree_with_one_that_has_them_all() -> None:
    torch.manual_seed(0)
    net, x = Consumer(nn.Conv2d(6, 4, 3, padding=1)), torch.randn(4, 3, 6, 6)
    groups = trace_groups(net, x)
    plan = PruningPlan({"first": torch.tensor([0, 3])}, {"first": 6})
    other: list[Tensor] = []
    compensate(
        copy.deepcopy(net), groups, plan, lambda: [x[2:]], forward,
        total=lambda own: (other.append(own), own)[1],
    )  # fmt: skip
    whole, half = copy.deepcopy(net), copy.deepcopy(net)
    compensate(whole, groups, plan, lambda: [x], forward)
    compensate(half, groups, plan, lambda: [x[:2]], forward, total=lambda own: own + other[0])
    torch.testing.assert_close(half.consumer.weight, whole.consumer.weight, atol=1e-5, rtol=1e-4)


def test_a_consumer_of_too_many_inputs_is_left_with_a_warning() -> None:
    net = nn.Sequential(nn.Linear(2, 16400), nn.ReLU(), nn.Linear(16400, 1))
    x, before = torch.randn(3, 2), net[2].weight.clone()
    plan = PruningPlan({"0": torch.arange(8200)}, {"0": 16400})
    with pytest.warns(UserWarning, match=r"2 \(16400 inputs\): too many"):
        assert compensate(net, trace_groups(net, x), plan, lambda: [x], forward) == ()
    assert torch.equal(net[2].weight, before)


def test_consumers_that_are_called_by_keyword_and_inputs_that_are_not_finite() -> None:
    class Named(Consumer):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.consumer(input=torch.relu(self.first(x))))

    torch.manual_seed(0)
    net, x = Named(nn.Conv2d(6, 4, 3, padding=1)), torch.randn(4, 3, 8, 8)
    groups = trace_groups(net, x)
    plan = PruningPlan({"first": torch.tensor([0, 3])}, {"first": 6})
    before = net.consumer.weight.clone()
    assert compensate(net, groups, plan, lambda: [x * torch.nan], forward) == ()
    assert torch.equal(net.consumer.weight, before)
    assert compensate(net, groups, plan, lambda: [x], forward) == ("consumer",)
    assert not torch.equal(net.consumer.weight, before)
