"""The walk's refits against brute force, other paths to the same numbers, and the dense network."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.functional.reconstruction.refit import refit_weight
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.layer_matrix import LayerMatrix
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.masked_refit import restore
from lightning_prune.surgery.places import Places
from lightning_prune.surgery.recalibrate import recalibrate_norms
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.walked_refit import WalkedRefit, walked_refit
from tests.graph.recurrent import MOVIE, Movie
from tests.networks import (
    NETWORKS,
    Concat,
    Depthwise,
    Residual,
    VisionTransformer,
    conv_bn,
    random_plan,
)


class Grouped(nn.Module):
    """Convolutions of two groups, one of them transposed, behind a prunable one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.stem = conv_bn(3, 8), conv_bn(8, 8)
        self.grouped = conv_bn(8, 12, groups=2)
        self.up = nn.ConvTranspose2d(12, 8, 3, 2, 1, 1, groups=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.up(self.grouped(self.stem(self.first(x))))))


class Tokens(nn.Module):
    """Linear layers on tokens, between LayerNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 10), nn.LayerNorm(10)
        self.mlp = nn.Sequential(nn.Linear(10, 16), nn.GELU(), nn.Linear(16, 10))
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        return self.head(x + self.mlp(self.norm(x)))


def inputs_of(network: type[nn.Module], number: int = 3, size: int = 4) -> list[Tensor]:
    random = torch.Generator().manual_seed(7)
    shape = MOVIE.shape[1:] if network is Movie else (3, 8, 8)
    shape = (1, 8, 8) if network is VisionTransformer else shape
    return [torch.randn(size, *shape, generator=random) for _ in range(number)]


class Case:
    """A scrambled network in double precision, masked at random and refitted."""

    def __init__(
        self,
        network: type[nn.Module],
        share: float = 0.6,
        ridge: float = 0.01,
        seen: bool = False,
        **options,
    ) -> None:
        torch.manual_seed(0)
        self.dense = network(5) if network is VisionTransformer else network()
        scramble(self.dense)
        self.dense.double().eval()
        self.batches = [x.double() for x in inputs_of(network)]
        if seen:  # by training
            recalibrate_norms(self.dense.train(), [torch.cat(self.batches)], call)
            self.dense.eval()
        self.groups = trace_groups(self.dense, self.batches[0])
        self.plan = random_plan(self.groups, share=share)
        self.net = copy_module(self.dense)
        self.found: WalkedRefit = walked_refit(
            self.net, self.dense, self.groups, self.plan, self.batches, call, ridge=ridge, **options
        )

    def masked(self) -> nn.Module:
        net = copy_module(self.dense)
        ChannelMask(net, self.groups, self.plan).apply()
        return net

    @torch.no_grad()
    def error(self, net: nn.Module) -> float:
        pairs = [(net(x), self.dense(x)) for x in self.batches]
        own, dense = (torch.cat(each) for each in zip(*pairs, strict=True))
        return float((own - dense).square().sum() / (dense - dense.mean(0)).square().sum())


ALL = [*NETWORKS, Grouped, Tokens, Movie, VisionTransformer]


@pytest.mark.parametrize("network", ALL)
def test_no_layer_becomes_worse_and_masked_rows_stay_zero(network: type[nn.Module]):
    case = Case(network)
    assert case.found.errors.keys() == case.found.before.keys()
    assert len(case.found.errors) >= 2
    assert not case.found.left
    for name, error in case.found.errors.items():
        assert error <= case.found.before[name] * (1 + 1e-9)
    assert not ChannelMask(case.net, case.groups, case.plan).violations()


@pytest.mark.parametrize("network", [*NETWORKS, Grouped, Tokens, VisionTransformer])
def test_the_network_comes_nearer_to_the_dense_one(network: type[nn.Module]):
    case = Case(network)
    plain = case.masked()
    for module in plain.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    recalibrate_norms(plain, case.batches, call)
    assert case.error(case.net) < 0.8 * case.error(plain.eval())


@pytest.mark.parametrize("network", ALL)
def test_outputs_are_those_of_the_network_as_it_is_then(network: type[nn.Module]):
    case = Case(network)
    with torch.no_grad():
        for x, output in zip(case.batches, case.found.outputs, strict=True):
            if network is not Movie:  # layers of a loop are visited before they run first
                torch.testing.assert_close(case.net(x), output, rtol=1e-12, atol=1e-12)
            assert output.shape == case.net(x).shape


@pytest.mark.parametrize("network", ALL)
def test_where_nothing_is_masked_nothing_changes(network: type[nn.Module]):
    case = Case(network, share=1.0)
    state = case.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in case.dense.state_dict().items())
    assert not case.found.errors
    assert not case.found.norms


@pytest.mark.parametrize("network", NETWORKS)
def test_the_dense_network_is_left_as_it_is(network: type[nn.Module]):
    torch.manual_seed(0)
    case = Case(network)
    torch.manual_seed(0)
    fresh = network()
    scramble(fresh)
    state = fresh.double().state_dict()
    assert all(torch.equal(value, state[name]) for name, value in case.dense.state_dict().items())


def all_rows(layer: nn.Module, batches: list[Tensor]) -> Tensor:
    matrix = LayerMatrix(layer)
    rows = []
    for x in batches:
        total = int(np.prod(matrix.places(x)))
        rows.append(matrix.rows(x, torch.arange(total).expand(matrix.images(x), -1)))
    return torch.cat(rows, 1)


@pytest.mark.parametrize("network", [*NETWORKS, Grouped, Tokens])
def test_each_weight_solves_its_least_squares(network: type[nn.Module]):
    """In the finished network: inputs as they are now, outputs as the dense one's are."""
    case = Case(network, places=Places(10_000), ridge=1e-3)
    reads = inputs_in(case.net, nn.Module, case.batches)
    wanted_reads = inputs_in(case.dense, nn.Module, case.batches)
    masked = case.masked()
    for name in case.found.errors:
        own, dense = case.net.get_submodule(name), case.dense.get_submodule(name)
        rows, wanted = all_rows(own, reads[name]), all_rows(dense, wanted_reads[name])
        y = wanted @ LayerMatrix(dense).weight.transpose(1, 2)
        if dense.bias is not None:
            y = y + dense.bias.unflatten(0, (len(y), -1))[:, None]
        start = LayerMatrix(masked.get_submodule(name)).weight
        following = dict(zip(case.groups.order, case.groups.order[1:], strict=False)).get(name, "")
        free = dense.bias is not None or isinstance(
            dict(case.net.named_modules()).get(following), _BatchNorm
        )
        for g in range(len(rows)):
            used = rows[g].any(0)
            if not used.any():  # a depthwise convolution of a masked channel
                continue
            pull = float((1e-3 * rows[g][:, used].square().sum(0).mean()).sqrt())
            x = rows[g] - free * rows[g].mean(0)
            target = y[g] - free * y[g].mean(0)
            stacked = torch.cat([x, pull * torch.eye(x.shape[1])])
            targets = torch.cat([target, pull * start[g].T])
            solved = torch.linalg.lstsq(stacked, targets).solution.T
            alive = LayerMatrix(own).weight[g].any(1)
            torch.testing.assert_close(
                LayerMatrix(own).weight[g][alive][:, used], solved[alive][:, used],
                rtol=1e-5, atol=1e-7,
            )  # fmt: skip


def inputs_in(net: nn.Module, kind: type, batches: list[Tensor]) -> dict[str, list[Tensor]]:
    """Return what each layer of a kind reads."""
    read: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, x, name=name: read.setdefault(name, []).append(x[0])
        )
        for name, module in net.named_modules()
        if isinstance(module, kind)
    ]
    with torch.no_grad():
        for x in batches:
            net(x)
    for handle in handles:
        handle.remove()
    return read


WITH_NORMS = [Residual, Concat, Depthwise, Grouped]


@pytest.mark.parametrize("network", WITH_NORMS)
def test_norms_change_as_what_they_read_has_changed(network):
    case = Case(network)
    read, dense_read = (inputs_in(n, _BatchNorm, case.batches) for n in (case.net, case.dense))
    assert set(case.found.norms) == set(read)
    kept = 0
    for name in read:
        x, reference = (
            torch.cat(own[name]).transpose(0, 1).flatten(1) for own in (read, dense_read)
        )
        same = (x == reference).all(1)
        kept += int(same.sum())
        own, dense = (net.get_submodule(name) for net in (case.net, case.dense))
        ratio = x.std(1) / reference.std(1)
        mean = x.mean(1) + (dense.running_mean - reference.mean(1)) * ratio
        for changed, before, found in (
            (mean, dense.running_mean, own.running_mean),
            (ratio.square() * dense.running_var, dense.running_var, own.running_var),
        ):
            wanted = torch.where(same, before, changed)
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert kept > 0


@pytest.mark.parametrize("network", WITH_NORMS)
def test_norms_are_those_of_a_recalibration_where_training_saw_the_same_images(network):
    case = Case(network, seen=True)
    again = copy_module(case.net)
    # Of the first layers, channels keep what training has seen.
    norms = {
        name: module
        for name, module in again.named_modules()
        if isinstance(module, _BatchNorm)
        and not (module.running_mean == case.dense.get_submodule(name).running_mean).any()
    }
    for module in norms.values():
        module.train()
    recalibrate_norms(again, [torch.cat(case.batches)], call)
    assert len(norms) >= 2
    for name, norm in norms.items():
        own = case.net.get_submodule(name)
        # In training mode a norm divides by the variance with n instead of n - 1.
        torch.testing.assert_close(own.running_mean, norm.running_mean, rtol=5e-3, atol=2e-3)
        torch.testing.assert_close(own.running_var, norm.running_var, rtol=5e-3, atol=2e-3)


def test_without_norms_statistics_stay_and_no_constant_is_lost():
    case = Case(Grouped, norms=False)
    assert not case.found.norms
    for (name, own), dense in zip(case.net.named_modules(), case.dense.modules(), strict=True):
        if isinstance(own, _BatchNorm):
            assert torch.equal(own.running_mean, dense.running_mean), name
    # The error that is stated is that of the layer itself, without a constant that nobody adds.
    name = "grouped.0"
    read: list[Tensor] = []
    pairs = []
    for net in (case.net, case.dense):
        handle = net.get_submodule(name).register_forward_hook(lambda _, x, y: read.append(y))
        with torch.no_grad():
            net(torch.cat(case.batches))
        handle.remove()
        pairs.append(read.pop())
    own, dense = (each.transpose(0, 1).flatten(1) for each in pairs)
    alive = own.any(1)
    missed = (own - dense)[alive].square().sum()
    whole = (dense - dense.mean(1, keepdim=True))[alive].square().sum()
    assert case.found.errors[name] == pytest.approx(float(missed / whole), rel=1e-6)


class Repeats(nn.Module):
    """Two layers of each kind; the channels of the first repeat one another."""

    def __init__(self, consumer: nn.Module, norm: bool, tokens: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(3, 6) if tokens else nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.consumer, self.last = consumer, nn.Linear(4, 3) if tokens else nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.last(torch.tanh(self.consumer(x)))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "consumer",
    [
        nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 4, 1, bias=False),
        nn.Conv2d(6, 4, 3, 2, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), nn.Linear(6, 4),
    ],
    ids=str,
)  # fmt: skip
def test_channels_that_repeat_others_can_go_and_nothing_changes(consumer, norm):
    """Channel 1 is twice channel 0, channel 4 is channel 3."""
    tokens = isinstance(consumer, nn.Linear)
    dense = Repeats(consumer, norm and not tokens, tokens)
    scramble(dense)
    with torch.no_grad():
        for copied, of, factor in ((1, 0, 2.0), (4, 3, 1.0)):
            dense.first.weight[copied] = factor * dense.first.weight[of]
            dense.first.bias[copied] = factor * dense.first.bias[of]
            if isinstance(dense.norm, nn.BatchNorm2d):
                dense.norm.running_mean[copied] = factor * dense.norm.running_mean[of]
                dense.norm.running_var[copied] = dense.norm.running_var[of]
                dense.norm.weight[copied] = dense.norm.weight[of]
                dense.norm.bias[copied] = factor * dense.norm.bias[of]
    dense.double().eval()
    random = torch.Generator().manual_seed(0)
    shape = (8, 5, 3) if tokens else (8, 3, 8, 8)
    batches = [torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(3)]
    groups = trace_groups(dense, batches[0])
    plan = PruningPlan({"first": torch.tensor([0, 2, 3, 5])}, {"first": 6})
    net = copy_module(dense)
    found = walked_refit(net, dense, groups, plan, batches, call, ridge=1e-10)
    assert not ChannelMask(net, groups, plan).violations()
    assert found.errors["consumer"] < 1e-8 < 1e-3 < found.before["consumer"]
    fresh = torch.randn(shape, generator=random, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(fresh), dense(fresh), rtol=1e-4, atol=1e-5)


def test_sums_of_two_processes_are_those_of_one():
    alone = Case(Residual)
    batches = [alone.batches[:1], alone.batches[1:]]
    meet, given, lock = threading.Barrier(2), {}, threading.Lock()
    nets = [copy_module(alone.dense), copy_module(alone.dense)]
    found, failed = {}, []

    def process(rank: int) -> None:
        def total(value: Tensor) -> Tensor:
            with lock:
                given[rank] = value
            meet.wait(20)
            summed = given[0] + given[1]
            meet.wait(20)
            return summed

        class Own(Places):
            """Batches are numbered from 0 in each process."""

            def draw(self, layer, batch, images, sizes):
                return super().draw(layer, batch + rank, images, sizes)

        try:
            found[rank] = walked_refit(
                nets[rank], copy_module(alone.dense), alone.groups, alone.plan, batches[rank],
                call, total=total, places=Own(),
            )  # fmt: skip
        except BaseException as error:
            failed.append(error)
            meet.abort()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for net in nets:
        for (name, own), value in zip(
            net.state_dict().items(), alone.net.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(own, value, rtol=1e-7, atol=1e-9, msg=name)
    assert found[0].errors == found[1].errors
    assert found[0].errors == pytest.approx(alone.found.errors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_layers_whose_inputs_are_not_finite_are_left(value: float):
    torch.manual_seed(0)
    dense = Residual().eval()
    x = torch.randn(4, 3, 8, 8)
    groups = trace_groups(dense, x)
    plan = random_plan(groups, share=0.6)
    net = copy_module(dense)
    x[1, 0, 3, 3] = value
    found = walked_refit(net, dense, groups, plan, [x], call)
    assert "a1.0" in found.left
    assert not found.norms
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
    assert not ChannelMask(net, groups, plan).violations()


def test_a_layer_too_wide_is_left_and_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_prune.surgery.walked_refit.LARGEST", 70**2)
    case = Case(Residual)
    assert set(case.found.left) & set(case.found.errors) == set()
    assert case.found.left["a1.0"] == "72 inputs are too many to fit"
    assert "head" in case.found.errors


def test_the_refit_is_that_of_the_function():
    """One layer behind the masked one: the same products by hand."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    groups = trace_groups(dense, x)
    plan = PruningPlan({"0": torch.tensor([1, 2, 4])}, {"0": 6})
    net, names = copy_module(dense), []
    walked_refit(net, dense, groups, plan, [x], call, progress=names.append)
    with torch.no_grad():
        read = torch.relu(dense[0](x)) * torch.tensor([0, 1, 1, 0, 1, 0])
        read = torch.cat([read, torch.ones(50, 1)], 1)
        start = dense[2].weight * torch.tensor([0, 1, 1, 0, 1, 0])
        solved = refit_weight(
            (read.T @ read)[None], (read.T @ dense(x))[None], start[None], 0.01, shift=True
        )
    assert solved is not None
    torch.testing.assert_close(net[2].weight.detach(), solved[0][0])
    torch.testing.assert_close(net[2].bias.detach(), solved[1][0])
    assert names == ["0", "2"]


def test_numbers_are_restored_by_name() -> None:
    class Turning(nn.Module):
        """Copies of containers may have their children in another order."""

        def __init__(self, widths: list[int]) -> None:
            super().__init__()
            for width in widths:
                self.add_module(f"of_{width}", nn.Linear(2, width))
            # openretina's loss keeps one that is as long as the last session has cells.
            self.register_buffer("last", torch.zeros(widths[0]))

    net, other = Turning([3, 5]), Turning([5, 3])
    restore(net, other)
    assert torch.equal(net.of_3.weight, other.of_3.weight)
    assert torch.equal(net.of_5.bias, other.of_5.bias)
    assert net.last.shape == (3,)
