import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.detection.network.blocks import CSP
from lightning_prune.detection.network.csp_reset import COUNTS, ORIGINALS, CSP_Reset, CSPReset
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask

CASES = ["guide0", "guide1", "guide2"]


def renamed(key):
    """Translate the names of the vector into ours."""
    for inner, ours in (("res_m.0.", "conv1."), ("res_m.1.", "conv2.")):
        if key.startswith("res_m.") and key.split(".", 2)[2].startswith(inner):
            number = key.split(".")[1]
            return f"bottlenecks.{number}.{ours}{key.split('.', 4)[4]}"
    return key


@pytest.fixture(params=CASES)
def golden(request, golden_vectors):
    """The arrays of one case, its facts, and a block with its weights."""
    arrays = np.load(golden_vectors / "14_csp_reset.npz")
    facts = json.loads((golden_vectors / "14_csp_reset.json").read_text())["guide"]
    facts = next(case for case in facts if case["key"] == request.param)
    arrays = {
        key.removeprefix(f"{request.param}|"): torch.tensor(arrays[key])
        for key in arrays.files
        if key.startswith(f"{request.param}|")
    }
    block = CSPReset(
        facts["in_ch"], facts["out_ch"], facts["n"], facts["add"], threshold=facts["threshold"]
    )
    state = {renamed(k.removeprefix("w|")): v for k, v in arrays.items() if k.startswith("w|")}
    state[f"{ORIGINALS}weight"] = arrays["original_conv3_weight"]
    problems = block.load_state_dict(state, strict=False)
    assert not problems.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in problems.missing_keys)
    return arrays, facts, block.train()


def run(block, arrays, facts):
    """Make the passes of a case, and return their outputs."""
    outputs = []
    for index in range(facts["passes"]):
        if index == 2:
            with torch.no_grad():
                block.conv3.norm.weight[facts["out_ch"] - 2] = 0.0
                block.conv3.norm.bias[facts["out_ch"] - 2] = 0.0
        outputs.append(block(arrays[f"x{index}"]).detach())
    return outputs


def test_golden_usage(golden):
    arrays, facts, block = golden
    counts, seen = torch.zeros(facts["out_ch"], dtype=torch.int64), []
    for index, y in enumerate(run(block, arrays, facts)):
        torch.testing.assert_close(y, arrays[f"y_train{index}"], rtol=1e-5, atol=1e-5)
        means = y.abs().mean((0, 2, 3))
        torch.testing.assert_close(means, arrays[f"mean_abs{index}"], rtol=1e-5, atol=1e-8)
        counts += means > facts["threshold"]
        seen.append(torch.nonzero(means > facts["threshold"]).flatten().tolist())
    assert seen == facts["used_per_pass"]
    assert block.channel_usage_count.tolist() == counts.tolist() == facts["usage_count_after"]
    assert block.used_channels == set(facts["used_channels_set"])
    assert sorted(set(range(facts["out_ch"])) - block.used_channels) == facts["never_used"]


def test_golden_counts_pass_by_pass(golden):
    arrays, facts, block = golden
    before = torch.zeros(facts["out_ch"], dtype=torch.int64)
    for index in range(2):  # until the norm is changed
        block(arrays[f"x{index}"])
        used = torch.nonzero(block.channel_usage_count - before).flatten().tolist()
        assert used == facts["used_per_pass"][index]
        before = block.channel_usage_count.clone()


@pytest.mark.parametrize("reset_type", ["zero", "original"])
@pytest.mark.filterwarnings("ignore:all .* channels count as used")
def test_golden_resets(golden, reset_type):
    arrays, facts, block = golden
    run(block, arrays, facts)
    block.reset_used_channels(reset_type)
    expected = arrays[f"conv3_after_reset_used_{reset_type}"]
    assert torch.equal(block.conv3.conv.weight.detach(), expected)


# --- the guide, as it is written ----------------------------------------------------------------


def trained(passes=3, **options):
    """A block of which channels 1 and 6 are dead, and its passes."""
    torch.manual_seed(0)
    block = CSPReset(in_ch=8, out_ch=12, **options)
    with torch.no_grad():
        block.conv3.norm.weight[[1, 6]] = 0.0
    for _ in range(passes):
        block(torch.randn(2, 8, 6, 6))
    return block


LIVING = [0, 2, 3, 4, 5, 7, 8, 9, 10, 11]


@pytest.mark.filterwarnings("ignore:all 128 channels count as used")
def test_the_guides_basic_usage():
    csp_reset = CSP_Reset(in_ch=64, out_ch=128, n=2)
    x = torch.randn(2, 64, 16, 16)
    output = csp_reset(x)
    assert output.shape == (2, 128, 16, 16)
    stats = csp_reset.get_channel_usage_stats()
    assert f"Used {stats['used_channels']}/{stats['total_channels']} channels" == (
        "Used 128/128 channels"
    )
    assert f"Usage ratio: {stats['usage_ratio']:.4f}" == "Usage ratio: 1.0000"
    csp_reset.reset_used_channels(reset_type="random")
    assert len(csp_reset.used_channels) == 128
    csp_reset.enable_channel_tracking(False)
    csp_reset(x)
    assert csp_reset.channel_usage_count.unique().tolist() == [1]
    csp_reset.enable_channel_tracking(True)
    csp_reset.used_channels.clear()
    csp_reset.channel_usage_count.zero_()
    assert csp_reset.used_channels == set()
    assert not csp_reset.channel_usage_count.any()
    csp_reset.reset_all_channels(reset_type="original")
    assert csp_reset.track_channels is True
    assert csp_reset.training is True


def test_the_alias_and_what_it_is():
    assert CSP_Reset is CSPReset
    assert isinstance(CSPReset(4, 4), CSP)
    block = CSPReset(in_ch=4, out_ch=6, n=3, add=False)
    assert len(block.bottlenecks) == 3
    assert not block.bottlenecks[0].add


def test_stats_have_the_keys_and_types_of_the_guide():
    stats = trained().get_channel_usage_stats()
    count = stats.pop("usage_count")
    assert isinstance(count, torch.Tensor)
    assert count.tolist() == [3 if c in LIVING else 0 for c in range(12)]
    assert stats == {
        "total_channels": 12,
        "used_channels": 10,
        "usage_ratio": 10 / 12,
        "used_channel_indices": LIVING,
    }
    assert [type(stats[key]) for key in stats] == [int, int, float, list]


def test_used_channels_is_a_set():
    block = trained()
    used = block.used_channels
    assert isinstance(used, set)
    assert used == set(LIVING)
    assert len(used) == 10
    for other in (used.copy(), copy.copy(used), copy.deepcopy(used), used | {1},
                  pickle.loads(pickle.dumps(used))):  # fmt: skip
        assert type(other) is set
        other.clear()
    assert block.used_channels == set(LIVING)
    used.clear()
    assert used == set() == block.used_channels
    assert block.get_channel_usage_stats()["usage_ratio"] == 0.0


CHANGES = {
    "discard": (lambda used: used.discard(0), set(LIVING) - {0}),
    "remove": (lambda used: used.remove(0), set(LIVING) - {0}),
    "pop": (lambda used: LIVING.index(used.pop()), None),
    "add": (lambda used: used.add(1), {*LIVING, 1}),
    "update": (lambda used: used.update([1, 4], {0}), {*LIVING, 1, 4}),
    "difference_update": (lambda used: used.difference_update([0, 1]), set(LIVING) - {0}),
    "intersection_update": (lambda used: used.intersection_update([0, 1, 2]), {0, 2}),
    "symmetric": (lambda used: used.symmetric_difference_update([0, 1]), {*LIVING, 1} - {0}),
    "or": (lambda used: used.__ior__({1}), {*LIVING, 1}),
    "minus": (lambda used: used.__isub__({0}), set(LIVING) - {0}),
    "and": (lambda used: used.__iand__({0, 1}), {0}),
    "xor": (lambda used: used.__ixor__({0, 1}), {*LIVING, 1} - {0}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_used_channels_changes_the_counts(name):
    block = trained()
    before = block.channel_usage_count.clone()
    change, expected = CHANGES[name]
    used = block.used_channels
    change(used)
    assert block.used_channels == used == (expected or used)
    assert len(used) == (9 if expected is None else len(expected))
    stats = block.get_channel_usage_stats()
    assert stats["used_channel_indices"] == sorted(used)
    for channel, count in enumerate(block.channel_usage_count.tolist()):
        was = int(before[channel])
        assert count == (max(was, 1) if channel in used else 0)


def test_used_channels_and_counts_can_be_assigned():
    block = trained()
    block.used_channels = {0, 1}
    assert block.channel_usage_count.nonzero().flatten().tolist() == [0, 1]
    block.used_channels = set()
    assert not block.channel_usage_count.any()
    block.channel_usage_count = torch.arange(12)
    assert block.used_channels == set(range(1, 12))
    with pytest.raises(ValueError, match=r"channel 99 is outside 0\.\."):
        block.used_channels = {99}


def test_the_threshold_of_a_live_block_counts_from_the_next_pass():
    torch.manual_seed(0)
    block = CSPReset(8, 12)
    x = torch.randn(4, 8, 6, 6)
    means = block(x).detach().abs().mean((0, 2, 3))
    assert block.threshold == 1e-6
    fifth, sixth = means.sort().values[4:6].tolist()
    block.threshold = (fifth + sixth) / 2
    block.used_channels.clear()
    block(x)
    assert block.used_channels == set((means >= sixth).nonzero().flatten().tolist())
    with pytest.raises(ValueError, match="pass a number of at least 0, a mean magnitude"):
        block.threshold = -1.0


def test_counts_go_on_from_a_checkpoint():
    block = trained()
    block(torch.randn(2, 8, 6, 6))
    state = {name: value.clone() for name, value in block.state_dict().items()}
    twin = trained(passes=0)
    twin.load_state_dict(state)
    assert twin.channel_usage_count.tolist() == block.channel_usage_count.tolist()
    assert twin.used_channels == block.used_channels
    for one in (block, twin):
        one(torch.randn(2, 8, 6, 6))
    assert twin.channel_usage_count.tolist() == block.channel_usage_count.tolist()
    assert twin._usage.forwards == block._usage.forwards
    # Files of earlier versions, and those of a CSP, have no counts: what is known stays.
    known = twin.channel_usage_count.tolist()
    twin.load_state_dict({n: v for n, v in state.items() if "usage" not in n})
    assert twin.channel_usage_count.tolist() == known


def test_only_training_passes_with_tracking_count():
    block = trained(passes=0)
    x = torch.randn(2, 8, 6, 6)
    block.eval()(x)
    block.train()
    block.enable_channel_tracking(False)
    block(x)
    assert not block.channel_usage_count.any()
    block.enable_channel_tracking()
    block(x)
    assert block.channel_usage_count.max() == 1


def test_tracking_changes_neither_output_nor_gradient():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    block, plain = CSPReset(8, 12, 2), CSP(8, 12, 2)
    plain.load_state_dict(
        {k: v for k, v in block.state_dict().items() if ORIGINALS not in k and k not in COUNTS}
    )
    ours, theirs = block(x), plain(x)
    assert torch.equal(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for a, b in zip(block.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


# --- reset --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_type", ["random", "original", "zero"])
def test_used_channels_start_anew_and_only_they(reset_type):
    block = trained()
    with torch.no_grad():
        for value in (*block.parameters(), *block.buffers()):
            value += 1  # what training does
    before = copy.deepcopy(block.state_dict())
    block.reset_used_channels(reset_type)
    after = block.state_dict()
    dead = [1, 6]
    for key, value in after.items():
        if not key.startswith("conv3") or value.ndim == 0:
            assert torch.equal(value, before[key]), key
            continue
        assert torch.equal(value[dead], before[key][dead])
        if reset_type == "original":
            original = before[ORIGINALS + key.removeprefix("conv3.").removeprefix("conv.")]
            assert torch.equal(value[LIVING], original[LIVING])
        else:
            assert (value[LIVING] != before[key][LIVING]).reshape(10, -1).any(1).all()
    assert block.channel_usage_count.max() == 3  # what was seen is not forgotten
    fresh = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    if reset_type != "original":
        for name, value in fresh.items():
            assert after[f"conv3.norm.{name}"][LIVING].unique().tolist() == [value]
    if reset_type == "zero":
        assert not block(torch.randn(2, 8, 6, 6))[:, LIVING].any()


def test_all_channels_start_anew_used_or_not():
    block = trained()
    block.reset_all_channels("zero")
    assert not block.conv3.conv.weight.any()
    block.reset_all_channels("original")
    assert all(
        torch.equal(block.state_dict()[f"conv3.{place}"], block.state_dict()[ORIGINALS + name])
        for place, name in (("conv.weight", "weight"), ("norm.running_var", "norm.running_var"))
    )


def test_the_optimizer_forgets_these_rows():
    block = trained()
    optimizer = torch.optim.SGD(block.parameters(), 0.1, momentum=0.9)
    (block(torch.randn(2, 8, 6, 6)) - 1).square().sum().backward()
    optimizer.step()
    other = optimizer.state[block.conv1.conv.weight]["momentum_buffer"].clone()
    block.reset_used_channels("random", [optimizer])
    for parameter in (block.conv3.conv.weight, block.conv3.norm.weight, block.conv3.norm.bias):
        buffer = optimizer.state[parameter]["momentum_buffer"]
        assert not buffer[LIVING].any()
    assert optimizer.state[block.conv3.norm.bias]["momentum_buffer"][[1, 6]].all()
    assert torch.equal(optimizer.state[block.conv1.conv.weight]["momentum_buffer"], other)


WARNINGS = {
    "eval": (lambda b: b.eval(), r"the block is in eval mode.*call \.train\(\)"),
    "disabled": (lambda b: b.enable_channel_tracking(False), "has its tracking disabled"),
    "none": (lambda b: b.used_channels.clear(), "no channel counts as used in 0 training passes"),
    "all": (lambda b: b.channel_usage_count.fill_(1), "all 12 channels.*raise the threshold"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_the_guides_troubleshooting(name):
    block = trained()
    change, message = WARNINGS[name]
    change(block)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        block.reset_used_channels("zero")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=message):
        block.reset_used_channels("zero")


def test_an_ordinary_reset_warns_of_nothing():
    block = trained()
    block.reset_used_channels("zero")
    block.eval().reset_all_channels("zero")


def test_arguments():
    for topk in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(
            ValueError, match=r"pass a number in \(0, 1\] or null, the fraction of places that stay"
        ):
            CSPReset(4, 4, topk=topk)
    for threshold in (-1e-9, float("nan")):
        with pytest.raises(ValueError, match="pass a number of at least 0, a mean magnitude"):
            CSPReset(4, 4, threshold=threshold)
    with pytest.raises(ValueError, match="odd"):
        CSPReset(4, 5)
    block = trained()
    for reset in (block.reset_used_channels, block.reset_all_channels):
        with pytest.raises(
            ValueError, match="reset_type='ones': pass 'random', 'original' or 'zero'"
        ):
            reset("ones")


# --- top-k --------------------------------------------------------------------------------------


def test_top_k_keeps_the_strongest_places():
    torch.manual_seed(0)
    sparse = CSPReset(8, 12, topk=0.25)
    dense = CSPReset(8, 12)
    dense.load_state_dict(sparse.state_dict())
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        out, whole = sparse(x), dense(x)
    assert (out != 0).sum((2, 3)).unique().tolist() == [9]
    assert torch.equal(out[out != 0], whole[out != 0])
    smallest = torch.where(out != 0, out.abs(), torch.inf).amin((2, 3))
    largest = torch.where(out == 0, whole.abs(), 0.0).amax((2, 3))
    assert (smallest >= largest).all()


def test_usage_is_counted_after_the_sparsity():
    """A mean of 1 in one of 36 places: 1 / 36 remains of a channel that had 1 everywhere."""
    block = trained(passes=0, topk=0.01, threshold=0.5)
    with torch.no_grad():
        block.conv3.norm.weight.zero_()
        block.conv3.norm.bias.fill_(2.0)
    block(torch.randn(2, 8, 6, 6))
    assert block.used_channels == set()
    block.topk = None
    block(torch.randn(2, 8, 6, 6))
    assert len(block.used_channels) == 12


# --- state dicts and cuts -----------------------------------------------------------------------


def test_nothing_is_a_buffer_or_parameter_of_its_own():
    """DDP would overwrite counts of the other ranks, and send the originals at every step."""
    block, plain = CSPReset(8, 12), CSP(8, 12)
    for names in ("named_parameters", "named_buffers"):
        assert [n for n, _ in getattr(block, names)()] == [n for n, _ in getattr(plain, names)()]


def test_originals_go_through_a_state_dict(tmp_path):
    first = trained()
    with torch.no_grad():
        for value in (*first.parameters(), *first.buffers()):
            value += 1
    state = first.state_dict()
    originals = {key: value for key, value in state.items() if key.startswith(ORIGINALS)}
    assert len(originals) == 5
    assert not torch.equal(originals[f"{ORIGINALS}weight"], state["conv3.conv.weight"])
    torch.save(state, tmp_path / "x.pt")
    second = CSPReset(8, 12)
    loaded = torch.load(tmp_path / "x.pt", weights_only=True)
    keys = list(loaded)
    second.load_state_dict(loaded)
    assert list(loaded) == keys  # the caller's own is left alone
    for key, value in second.state_dict().items():
        assert torch.equal(value, state[key])
    loaded[f"{ORIGINALS}weight"].zero_()  # no view of what was loaded
    assert torch.equal(second.state_dict()[f"{ORIGINALS}weight"], originals[f"{ORIGINALS}weight"])


def test_weights_of_an_ordinary_block_are_the_originals():
    torch.manual_seed(0)
    plain, block = CSP(8, 12), CSPReset(8, 12)
    block.load_state_dict(plain.state_dict())
    with torch.no_grad():
        block.conv3.conv.weight.zero_()
        block.conv3.norm.weight.zero_()
    block.reset_all_channels("original")
    for (name, ours), theirs in zip(block.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_an_ordinary_block_refuses_or_passes_over_originals():
    with pytest.raises(RuntimeError, match=r"originals\.weight"):
        CSP(8, 12).load_state_dict(CSPReset(8, 12).state_dict())
    CSP(8, 12).load_state_dict(CSPReset(8, 12).state_dict(), strict=False)


def test_originals_that_do_not_fit_their_layer_are_an_error():
    block = trained()
    before = block.state_dict()[f"{ORIGINALS}weight"].clone()
    state = dict(block.state_dict())
    state[f"{ORIGINALS}weight"] = torch.zeros(3, 3, 1, 1)
    with pytest.raises(RuntimeError, match=r"originals\.weight is \(3, 3, 1, 1\).*file was alter"):
        block.load_state_dict(state)
    assert torch.equal(block.state_dict()[f"{ORIGINALS}weight"], before)


def test_weights_of_another_width_are_refused_without_harm():
    block = trained()
    before, counts = copy.deepcopy(block.state_dict()), block.channel_usage_count.tolist()
    with pytest.raises(RuntimeError, match="size mismatch"):
        block.load_state_dict(CSPReset(8, 16).state_dict())
    assert block.channel_usage_count.tolist() == counts
    for key, value in block.state_dict().items():
        if key.startswith(ORIGINALS):
            assert torch.equal(value, before[key])
    block.reset_all_channels("original")


@pytest.mark.parametrize("kind", ["double", "meta device"])
def test_copies_and_moves(kind):
    block = trained()
    twin = copy.deepcopy(block)
    twin(torch.randn(2, 8, 6, 6))
    assert (block.channel_usage_count.max(), twin.channel_usage_count.max()) == (3, 4)
    if kind == "double":
        block.double()(torch.randn(2, 8, 6, 6).double())
        block.reset_all_channels("original")
        assert torch.equal(
            block.conv3.conv.weight, block.state_dict()[f"{ORIGINALS}weight"].double()
        )
    else:  # the counts go where the outputs are, and the originals stay
        block.to("meta")(torch.zeros(2, 8, 6, 6, device="meta"))
        assert block.channel_usage_count.device.type == "meta"
        assert block.state_dict()[f"{ORIGINALS}weight"].device.type == "cpu"


def test_built_without_values_and_filled_later():
    """As Lightning builds large models; the weights that come are the originals."""
    source = trained()
    with torch.device("meta"):
        block = CSPReset(8, 12)
    plain = {
        key: value
        for key, value in source.state_dict().items()
        if ORIGINALS not in key and key not in COUNTS
    }
    block.to_empty(device="cpu").load_state_dict(plain)
    block(torch.randn(2, 8, 6, 6))
    assert sorted(block.used_channels) == LIVING
    block.reset_all_channels("zero")
    block.reset_all_channels("original")
    assert torch.equal(block.conv3.conv.weight, source.conv3.conv.weight)


class Net(nn.Module):
    """Two blocks in a row, and a layer on each side."""

    def __init__(self, topk=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.one, self.two = CSPReset(8, 12, topk=topk), CSPReset(12, 6, n=2, topk=topk)
        self.head = nn.Conv2d(6, 2, 1)
        track_architecture(self)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))))


PLAN = {
    "stem": torch.tensor([0, 2, 5, 7]),
    "one.conv3.conv": torch.tensor([1, 4, 9]),
    "two.conv1.conv": torch.tensor([0, 2]),
    "two.conv3.conv": torch.tensor([0, 5]),
}


def cut(net):
    groups = trace_groups(net, torch.zeros(1, 3, 6, 6))
    keep = {name: rows for name, rows in PLAN.items() if name in groups}
    assert keep.keys() >= {"stem", "one.conv3.conv", "two.conv3.conv"}
    plan = PruningPlan(keep, {name: groups[name].channels for name in keep})
    return groups, plan


def test_counts_and_originals_follow_a_cut():
    """Oracle: originals that equal the weights when the cut is made still do so afterwards."""
    torch.manual_seed(0)
    net = Net()
    for block in (net.one, net.two):
        block.channel_usage_count.copy_(10 * torch.arange(len(block.channel_usage_count)))
    groups, plan = cut(net)
    cut_channels(net, groups, plan)
    assert net.one.channel_usage_count.tolist() == [10, 40, 90]
    assert net.two.channel_usage_count.tolist() == [0, 50]
    state = net.state_dict()
    for name in ("one", "two"):
        for place in ("conv.weight", "norm.weight", "norm.bias", "norm.running_var"):
            original = state[f"{name}.{ORIGINALS}{place.removeprefix('conv.')}"]
            assert torch.equal(original, state[f"{name}.conv3.{place}"])
    net.one.used_channels.clear()
    net(torch.randn(2, 3, 6, 6))
    assert net.one.channel_usage_count.shape == (3,)
    for block in (net.one, net.two):
        with torch.no_grad():
            block.conv3.conv.weight.zero_()
        block.reset_all_channels("original")
        assert block.conv3.conv.weight.abs().min() > 0


def test_a_cut_model_loads_into_a_dense_one_and_back():
    torch.manual_seed(0)
    net = Net()
    dense = copy.deepcopy(net.state_dict())
    cut_channels(net, *cut(net))
    net(torch.randn(2, 3, 6, 6))
    narrow = net.state_dict()
    other = Net()
    other.load_state_dict(narrow)
    for key, value in other.state_dict().items():
        assert torch.equal(value, narrow[key]), key
    assert other.one.channel_usage_count.tolist() == [1, 1, 1]  # the counts go with the file
    assert len(other.one.channel_usage_count) == 3
    other(torch.randn(2, 3, 6, 6))
    other.one.reset_all_channels("original")
    assert torch.equal(other.one.conv3.conv.weight, narrow[f"one.{ORIGINALS}weight"])
    other.load_state_dict(dense)
    assert len(other.one.channel_usage_count) == 12
    assert torch.equal(
        other.state_dict()[f"two.{ORIGINALS}weight"], dense[f"two.{ORIGINALS}weight"]
    )


@pytest.mark.parametrize("topk", [None, 0.3])
def test_masked_equals_cut(topk):
    torch.manual_seed(0)
    net = Net(topk)
    for _ in range(3):
        net(torch.randn(4, 3, 6, 6))
    net.eval()
    x = torch.randn(2, 3, 6, 6)
    groups, plan = cut(net)
    before = net(x)
    ChannelMask(net, groups, plan).apply()
    masked = net(x)
    assert not torch.allclose(masked, before, atol=1e-3)
    cut_channels(net, groups, plan)
    torch.testing.assert_close(net(x), masked, rtol=1e-5, atol=1e-5)


# torch hides it by showing nothing, which is too late where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_blocks_count():
    block = trained(passes=0)
    compiled = torch.compile(block, backend="eager")
    for _ in range(4):
        compiled(torch.randn(2, 8, 6, 6)).sum().backward()
    assert block.channel_usage_count.tolist() == [4 if c in LIVING else 0 for c in range(12)]
