"""Files of cut models whose modules state widths as numbers."""

import copy
import io

import pytest
import torch
from safetensors.torch import load as st_load
from safetensors.torch import save as st_save
from torch.optim.swa_utils import AveragedModel

from lightning_prune.graph.macs import count_macs
from lightning_prune.surgery.architecture import RECORD, read_record, track_architecture
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.json_tensor import to_json_tensor
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.scramble import scramble
from tests.networks import random_plan
from tests.sized_networks import IMAGE, NETWORKS, Vit


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    """A dense network, its groups, one of its cuts, that cut masked, and an example."""
    make, example = NETWORKS[request.param]
    torch.manual_seed(0)
    dense = track_architecture(make()).eval()
    scramble(dense)
    groups = build_groups(dense, example)
    return dense, groups, torch.randn(2, *example.shape[1:]), make, request.param


def cut_of(dense, groups, seed=0, share=0.5):
    net = copy.deepcopy(dense)
    cut_channels(net, groups, random_plan(groups, seed, share))
    return net


def agree(one, other, x):
    torch.testing.assert_close(one.eval()(x), other.eval()(x), rtol=0, atol=0)
    assert str(one) == str(other)
    assert {n: p.shape for n, p in one.named_parameters()} == {
        n: p.shape for n, p in other.named_parameters()
    }


def test_masked_is_cut_and_most_of_the_work_is_gone(case):
    dense, groups, x, _, _ = case
    plan = random_plan(groups)
    masked = copy.deepcopy(dense)
    ChannelMask(masked, groups, plan).apply()
    net = cut_of(dense, groups)
    torch.testing.assert_close(net(x), masked(x), rtol=1e-4, atol=1e-4)
    assert count_macs(net, x) < 0.6 * count_macs(dense, x)


def test_files_of_cut_models_load_wherever_dense_ones_do(case):
    dense, groups, x, make, _ = case
    net = cut_of(dense, groups)
    assert RECORD in net.state_dict()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    fresh = track_architecture(make())
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    agree(fresh, net, x)
    assert fresh.state_dict()[RECORD].equal(net.state_dict()[RECORD])
    foreign = make()
    load_pruned_state_dict(foreign, net.state_dict())
    agree(foreign, net, x)
    tensors = {k: v.cpu().contiguous() for k, v in net.state_dict().items()}
    safe = track_architecture(make())
    safe.load_state_dict(st_load(st_save(tensors)))
    agree(safe, net, x)
    average = AveragedModel(track_architecture(make()))
    average.load_state_dict(AveragedModel(net).state_dict())
    agree(average.module, net, x)


def test_cut_models_follow_narrower_wider_and_dense_files(case):
    dense, groups, x, make, _ = case
    narrow, narrower = cut_of(dense, groups, 0, 0.75), cut_of(dense, groups, 1, 0.25)
    live = track_architecture(make())
    for source in (narrow, narrower, narrow, dense, narrower, dense):
        live.load_state_dict(source.state_dict())
        agree(live, source, x)
    assert RECORD not in live.state_dict()


def test_a_cut_model_is_cut_again_and_its_file_loads(case):
    dense, groups, x, make, _ = case
    net = track_architecture(make())
    net.load_state_dict(cut_of(dense, groups, 0, 0.75).state_dict())
    again = build_groups(net, x[:1])
    if not again:
        pytest.skip("nothing is left to cut")
    cut_channels(net, again, random_plan(again, 3))
    fresh = track_architecture(make())
    fresh.load_state_dict(net.state_dict())
    agree(fresh, net, x)


@pytest.mark.parametrize(
    ("module", "sizes", "message"),
    [
        ("blocks.0.attention", {"num_heads": 5}, "is 5 in the file and 4 when dense"),
        ("blocks.0.attention", {"num_heads": 0}, "is 0 in the file and 4 when dense"),
        ("blocks.0.attention", {"num_heads": [2]}, "is no number of the module"),
        ("blocks.0.attention", {"training": 1}, "is no number of the module"),
        ("blocks.0.attention", {"depth": 1}, "is no number of the module"),
        ("patch", {"stride": [1, 1]}, "is no number of the module"),
        ("patch", {"kernel_size": [4, 4]}, "is no number of the module"),
        ("norm", {"normalized_shape": [2, 2]}, "is no number of the module"),
        ("blocks.0.attention", {"_modules": 1}, "is unreadable"),
        ("blocks.0.attention", {"num_heads": True}, "is unreadable"),
        ("blocks.0.attention", {"num_heads": 1.5}, "is unreadable"),
        ("blocks.0.attention", {"num_heads": 2**70}, "is unreadable"),
        ("blocks.0.attention", {"num_heads": {"a": 1}}, "is unreadable"),
        ("blocks.0.attention", {"num_heads": [1] * 100}, "is unreadable"),
        ("blocks.0.attention", {}, "is unreadable"),
        ("blocks.0.attention", [1], "is unreadable"),
    ],
)
@pytest.mark.parametrize("plain", [False, True], ids=["load_state_dict", "load_pruned_state_dict"])
@pytest.mark.parametrize("was_cut", [False, True], ids=["dense", "cut"])
def test_sizes_that_no_cut_makes_are_refused_and_nothing_changed(
    module, sizes, message, plain, was_cut
):
    torch.manual_seed(0)
    dense = track_architecture(Vit(1))
    groups = build_groups(dense, IMAGE)
    state = cut_of(dense, groups).state_dict()
    record = read_record(state)
    record["attributes"][module] = {**record["attributes"].get(module, {}), "sizes": sizes}
    state[RECORD] = to_json_tensor(record)
    live = cut_of(dense, groups, 1, 0.75) if was_cut else dense
    before = {n: v.clone() for n, v in live.state_dict().items()}
    numbers = {n: _numbers(m) for n, m in live.named_modules()}
    load = (lambda s: load_pruned_state_dict(live, s)) if plain else live.load_state_dict
    with pytest.raises(ValueError, match=message):
        load(state)
    assert numbers == {n: _numbers(m) for n, m in live.named_modules()}
    assert all(v.equal(before[n]) for n, v in live.state_dict().items())


def _numbers(module):
    return {k: v for k, v in vars(module).items() if isinstance(v, int | tuple)}
