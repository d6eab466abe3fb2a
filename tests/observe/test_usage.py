import copy

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from lightning_prune.graph.outputs import LayerOutput, layer_outputs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.usage import ChannelUsage, kept_rows
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.recalibrate import recalibrate_norms
from tests.networks import EXAMPLE, NETWORKS, make, random_plan


class Varied(nn.Module):
    """Layers of every kind, in which channels are dead, weak or alive in some batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 6, 3, padding=1)
        self.a, self.norm_a = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.depthwise, self.norm_d = nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.mlp, self.norm_m = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.tokens, self.head = nn.Linear(8, 7), nn.Linear(7, 2)
        with torch.no_grad():
            self.plain.bias[:] = torch.tensor([-100.0, -1.5, -0.9, 0.0, 1.0, 2.0])
            self.norm_a.bias[:3] = torch.tensor([-100.0, -2.5, -1.5])
            self.norm_d.weight[2:4], self.norm_d.bias[2:4] = 0.0, torch.tensor([0.0, 2e-6])
            self.up.bias[0] = -100.0
            self.norm_m.bias[5] = -100.0
            self.tokens.weight[4], self.tokens.bias[4] = 0.0, 0.0

    def steps(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the output of every layer, none of them in place."""
        out = {"plain": F.relu(self.plain(x))}
        out["a"] = F.relu(self.norm_a(self.a(out["plain"])))
        joined = out["plain"] + out["a"]
        out["depthwise"] = F.relu(self.norm_d(self.depthwise(joined)))
        out["up"] = F.hardswish(self.up(out["depthwise"]))
        pooled = out["up"].mean((2, 3))
        out["mlp"] = F.relu(self.norm_m(self.mlp(pooled)))
        tokens = out["mlp"][:, None].expand(-1, 3, -1)
        out["tokens"] = F.gelu(self.tokens(tokens))
        out["head"] = self.head(out["tokens"])
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x).relu_()
        x = x + self.act(self.norm_a(self.a(x)))
        x = F.hardswish(self.up(self.act(self.norm_d(self.depthwise(x)))))
        x = self.act(self.norm_m(self.mlp(x.mean((2, 3)))))
        return self.head(F.gelu(self.tokens(x[:, None].expand(-1, 3, -1))))


def varied(seed=0):
    torch.manual_seed(seed)
    return Varied()


def batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [0.5 * torch.randn(3, 3, 6, 6, generator=generator) for _ in range(count)]


def by_hand(net, passes, threshold=1e-6):
    """Count with plain means of outputs that are computed step by step, in double precision."""
    twin, counts = copy.deepcopy(net).double().train(), {}
    with torch.no_grad():
        for x in passes:
            for name, out in twin.steps(x.double()).items():
                dim = 1 if name in ("plain", "a", "depthwise", "up") else out.ndim - 1
                means = out.abs().movedim(dim, 0).flatten(1).mean(1)
                counts[name] = counts.get(name, 0) + (means > threshold).long()
    return {name: count.tolist() for name, count in counts.items()}


def tracked(net, **options):
    usage = ChannelUsage(net, layer_outputs(net, torch.zeros(2, 3, 6, 6)), **options)
    usage.start()
    return usage


def counts_of(usage):
    return {name: counter.counts.tolist() for name, counter in usage.counters.items()}


def hooks_of(net):
    return [hook for module in net.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("threshold", [1e-6, 0.1, 0.3])
def test_counts_equal_a_count_by_hand(threshold):
    net, passes = varied().train(), batches(12)
    usage = tracked(net, threshold=threshold)
    for x in passes:
        net(x)
    expected = by_hand(net, passes, threshold)
    assert counts_of(usage) == expected
    assert expected.keys() == {"plain", "a", "depthwise", "up", "mlp", "tokens", "head"}
    # Every kind of channel has been there.
    assert {0, 12} < {count for counts in expected.values() for count in counts}
    assert set(usage.read()[1].values()) == {12}


def test_the_model_computes_the_same_as_without():
    net, twin, (x,) = varied().train(), varied().train(), batches(1)
    usage = tracked(net)
    assert torch.equal(net(x), twin(x))
    net(x).square().sum().backward()
    twin(x).square().sum().backward()
    usage.stop()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), twin.buffers(), strict=True))


def test_only_training_passes_count():
    net, (x,) = varied(), batches(1)
    usage = tracked(net)
    net.eval()(x)
    assert set(usage.read()[1].values()) == {0}
    net.train()
    net.a.eval()
    net(x)
    assert usage.read()[1] == {n: int(n != "a") for n in usage.counters}


def test_estimating_statistics_is_no_training():
    """Norms alone are in training mode then, in a model that is evaluated."""
    net = varied().train()
    usage = tracked(net)
    recalibrate_norms(net, batches(3), lambda model, x: model(x))
    net.eval().norm_a.train()
    net(batches(1)[0])
    assert set(usage.read()[1].values()) == {0}


def test_every_nth_pass_the_first_among_them():
    net, passes = varied().train(), batches(8)
    usage = tracked(net, every_n=3)
    for x in passes:
        net(x)
    assert counts_of(usage) == by_hand(net, passes[::3])
    assert set(usage.read()[1].values()) == {3}


def test_no_hook_before_and_after():
    net, (x,) = varied().train(), batches(1)
    usage = ChannelUsage(net, layer_outputs(net, x))
    assert not usage.tracks
    assert not hooks_of(net)
    with usage:
        assert usage.tracks
        assert len(hooks_of(net)) == 7
        net(x)
        usage.start()  # once more: still one hook each
        net(x)
    assert not usage.tracks
    assert not hooks_of(net)
    net(x)
    assert set(usage.read()[1].values()) == {2}
    with pytest.raises(RuntimeError), usage:
        net(torch.zeros(1))
    assert not hooks_of(net)


def test_clear_and_stats():
    net, (x,) = varied().train(), batches(1)
    usage = tracked(net)
    net(x)
    usage.clear(["a"])
    net(x)
    stats = usage.stats()
    assert (stats["a"]["forwards"], stats["mlp"]["forwards"]) == (1, 2)
    assert stats["a"]["usage_count"].max() == 1
    assert stats["mlp"]["usage_count"].max() == 2
    assert stats["mlp"]["total_channels"] == 8
    assert stats["mlp"]["used_channel_indices"] == [
        place for place, count in enumerate(by_hand(net, [x, x])["mlp"]) if count
    ]
    usage.clear()
    assert set(usage.read()[1].values()) == {0}
    assert not any(sum(counts) for counts in counts_of(usage).values())


def test_sums_over_processes_are_one_message():
    net, (x,) = varied().train(), batches(1)
    usage = tracked(net)
    net(x)
    messages = []

    def total(values):
        messages.append(values)
        return 3 * values

    counts, forwards = usage.read(total)
    assert {n: c.tolist() for n, c in counts.items()} == {
        n: [3 * v for v in own] for n, own in counts_of(usage).items()
    }
    assert set(forwards.values()) == {3}
    assert len(messages) == 1
    assert usage.stats(total)["a"]["forwards"] == 3
    assert ChannelUsage(net, {}).read(total) == ({}, {})


def test_layer_and_norm_of_the_model_and_of_a_copy():
    net = varied()
    usage, twin = tracked(net), copy.deepcopy(net)
    assert usage.layer_and_norm(net, "a") == (net.a, net.norm_a)
    assert usage.layer_and_norm(twin, "plain") == (twin.plain, None)


def test_arguments():
    net = varied()
    for threshold in (-1e-9, float("nan")):
        with pytest.raises(ValueError, match="pass a number of at least 0, a mean magnitude"):
            ChannelUsage(net, {}, threshold=threshold)
    with pytest.raises(ValueError, match="pass an integer of at least 1"):
        ChannelUsage(net, {}, every_n=0)


# --- what a model goes through ------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_cut_keeps_the_counts_of_what_is_left(network, share):
    """Oracle: every channel carries its number, in its norm's bias or its own, through the cut."""
    net = make(network).train()
    outputs = layer_outputs(net, EXAMPLE)
    usage = ChannelUsage(net, outputs, every_n=2)
    usage.start()

    def marks(name):
        layer, norm = usage.layer_and_norm(net, name)
        return (layer if norm is None else norm).bias

    with torch.no_grad():
        for name, counter in usage.counters.items():
            marks(name).copy_(torch.arange(counter.channels))
            counter.counts = 10 * torch.arange(counter.channels) + 1
            counter.forwards = 500
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups, share=share))
    usage = usage.after_cut(net, layer_outputs(net, EXAMPLE), pruned)
    assert usage.tracks
    assert len(hooks_of(net)) == len(usage.counters) == len(outputs)
    for name, counter in usage.counters.items():
        assert counter.counts.tolist() == [10 * int(mark) + 1 for mark in marks(name)], name
    widths = {name: usage.counters[name].channels for name in groups}
    assert widths == {name: max(1, int(groups[name].channels * share)) for name in groups}
    net(torch.randn(2, 3, 8, 8))
    assert set(usage.read()[1].values()) == {501}
    usage.stop()
    assert not hooks_of(net)


def test_a_cut_before_the_start_leaves_it_stopped_and_lost_layers_are_dropped():
    net = make(NETWORKS[1])
    outputs = layer_outputs(net, EXAMPLE)
    usage = ChannelUsage(net, outputs)
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    left = {name: output for name, output in outputs.items() if name != "a1.0"}
    after = usage.after_cut(net, left, pruned)
    assert not after.tracks
    assert "a1.0" not in after.counters
    assert "a2.0" in after.counters


def test_kept_rows():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 5, 1), nn.ReLU(),
                        nn.Conv2d(5, 2, 1))  # fmt: skip
    groups = trace_groups(net, EXAMPLE)
    plan = PruningPlan({"2": torch.tensor([1, 4])}, {"2": 5})
    pruned = cut_channels(net, groups, plan)
    assert kept_rows(net[0], "0", pruned) is None
    assert kept_rows(net[2], "2", pruned).tolist() == [1, 4]
    assert kept_rows(net[4], "4", pruned) is None  # only its columns went


def test_state_goes_on_in_another_run(tmp_path):
    net, passes = varied().train(), batches(7)
    usage = tracked(net, every_n=2)
    for x in passes[:3]:
        net(x)
    torch.save(usage.state_dict(), tmp_path / "x.pt")
    usage.stop()
    again = tracked(net, every_n=2)
    again.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    for x in passes[3:]:
        net(x)
    assert counts_of(again) == by_hand(net, passes[::2])
    assert set(again.read()[1].values()) == {4}


def test_state_of_other_layers_and_widths_is_passed_over():
    net = varied().train()
    usage = tracked(net)
    net(batches(1)[0])
    state = usage.state_dict()
    state["counts"]["mlp"] = torch.ones(99, dtype=torch.int64)
    del state["counts"]["up"]
    state["counts"]["unknown"] = torch.ones(1, dtype=torch.int64)
    again = ChannelUsage(net, usage.outputs)
    again.load_state_dict(state)
    own = counts_of(usage)
    assert counts_of(again) == own | {"mlp": [0] * 8, "up": [0] * 5}


def test_another_process_takes_only_the_rhythm():
    net = varied().train()
    usage = tracked(net, every_n=2)
    net(batches(1)[0])
    again = ChannelUsage(net, usage.outputs, every_n=2)
    again.load_state_dict(usage.state_dict(), first=False)
    assert set(again.read()[1].values()) == {0}
    with again:
        net(batches(1)[0])  # the second pass is not looked at
    assert set(again.read()[1].values()) == {0}


def test_loaded_counts_are_no_views_of_the_state():
    net, passes = varied().train(), batches(2)
    usage = tracked(net)
    net(passes[0])
    state = usage.state_dict()
    before = state["counts"]["a"].clone()
    again = ChannelUsage(net, usage.outputs)
    again.load_state_dict(state)
    usage.stop()
    with again:
        net(passes[1])
    assert torch.equal(state["counts"]["a"], before)


def test_a_copy_of_the_model_is_not_counted():
    net, (x,) = varied().train(), batches(1)
    usage = tracked(net)
    twin = copy.deepcopy(net)
    twin.train()(x)
    twin.eval()(x)
    assert set(usage.read()[1].values()) == {0}
    net(x)
    assert counts_of(usage) == by_hand(net, [x])


# torch hides it by showing nothing, which is too late where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("every_n", [1, 2])
def test_compiled_models_are_counted(every_n):
    """And are not compiled again for every pass."""
    net, passes = varied().train(), batches(6)
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter)
    usage = ChannelUsage(compiled, layer_outputs(compiled, passes[0]), every_n=every_n)
    assert "plain" in usage.counters
    for x in passes[:3]:  # on and off for each batch, as the callback does
        with usage:
            compiled(x)
    frames = counter.frame_count
    usage.start()
    for x in passes[3:]:
        compiled(x)
    assert counts_of(usage) == by_hand(net, passes[::every_n])
    assert set(usage.read()[1].values()) == {6 // every_n}
    assert counter.frame_count == frames
    usage.stop()
    compiled(passes[0])
    assert set(usage.read()[1].values()) == {6 // every_n}


def test_on_another_device_nothing_is_read_back():
    """Meta tensors have no values: whoever asked for one would fail."""
    net = varied().train()
    usage = tracked(net)
    x = batches(1)[0]
    net(x)
    net.to("meta")(x.to("meta"))
    assert {counter.counts.device.type for counter in usage.counters.values()} == {"meta"}


def test_half_precision_and_autocast():
    net, (x,) = varied().train(), batches(1)
    usage = tracked(net)
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert counts_of(usage) == by_hand(net, [x])
    net.bfloat16()(x.bfloat16())
    assert set(usage.read()[1].values()) == {2}


def test_a_module_without_a_name():
    layer = nn.Linear(2, 3)
    usage = ChannelUsage(layer, {"": LayerOutput("", None, False, "")})
    with usage:
        layer(torch.ones(1, 2))
    assert usage.stats()[""]["used_channels"] == 3
