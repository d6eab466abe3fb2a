"""Files of cut models whose modules state widths as numbers."""

import copy
import io

import pytest
import torch
from safetensors.torch import load as st_load
from safetensors.torch import save as st_save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.swin_transformer import SwinTransformer

from lightning_prune.graph.macs import count_macs
from lightning_prune.surgery.architecture import RECORD, read_record, track_architecture
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.json_tensor import to_json_tensor
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.scramble import scramble
from tests.networks import random_plan

IMAGE, TOKENS = torch.zeros(1, 3, 32, 32), torch.zeros(1, 6, 8)


def regnet():
    params = BlockParams(
        depths=[1, 1], widths=[16, 32], group_widths=[8, 8], bottleneck_multipliers=[1.0, 1.0],
        strides=[2, 2], se_ratio=0.25,
    )  # fmt: skip
    return RegNet(params, num_classes=4, stem_width=8)


def swin():
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=32, depths=[1, 1], num_heads=[4, 8], window_size=[4, 4],
        stochastic_depth_prob=0.0, num_classes=4,
    )  # fmt: skip


class Attention(nn.Module):
    """Fused queries, keys and values, and three numbers that say how wide they are."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, scale=0.35)
        return self.project(out.transpose(1, 2).reshape(b, n, self.attn_dim))


class Block(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """A classifier of images by patches."""

    def __init__(self, blocks: int = 2, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


class Conv1D(nn.Module):
    """A linear layer as GPT-2 has it: weight (inputs, outputs), and both sizes as numbers."""

    def __init__(self, nx: int, nf: int) -> None:
        super().__init__()
        self.nx, self.nf = nx, nf
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.2)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Gpt(nn.Module):
    """An embedding of inputs, and two layers of a language model's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.fc, self.project = Conv1D(16, 64), Conv1D(64, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.project(F.gelu(self.fc(x))))


class C2f(nn.Module):
    """The block of YOLOv8 that splits by its own number."""

    def __init__(self, inputs: int = 16, outputs: int = 16) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1 = nn.Conv2d(inputs, 2 * self.c, 1)
        self.m = nn.ModuleList(nn.Conv2d(self.c, self.c, 3, padding=1) for _ in range(2))
        self.cv2 = nn.Conv2d(4 * self.c, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).relu().split((self.c, self.c), 1))
        y.extend(m(y[-1]).relu() for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Recurrent(nn.Module):
    """Pixels in a row, read by layers that each have the same hidden size."""

    def __init__(self, kind: type[nn.RNNBase], directions: int = 1, **sizes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 3, 4)
        self.rnn = kind(8, 12, batch_first=True, bidirectional=directions == 2, **sizes)
        width = directions * (sizes.get("proj_size") or 12)
        self.join, self.head = nn.Linear(width, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).relu().flatten(2).transpose(1, 2)
        return self.head(self.join(self.rnn(x)[0]).relu())


def lstm():
    return Recurrent(nn.LSTM, 2, num_layers=2)


def projected_lstm():
    return Recurrent(nn.LSTM, 2, num_layers=2, proj_size=6)


def gru():
    return Recurrent(nn.GRU, num_layers=2)


def rnn():
    return Recurrent(nn.RNN, 2, num_layers=2)


def c2f():
    return nn.Sequential(nn.Conv2d(3, 16, 3), C2f(), nn.ReLU(), nn.Conv2d(16, 4, 1))


NETWORKS = {
    "regnet": (regnet, IMAGE),
    "swin": (swin, IMAGE),
    "vit": (Vit, IMAGE),
    "gpt": (Gpt, TOKENS),
    "c2f": (c2f, IMAGE),
    "lstm": (lstm, IMAGE),
    "projected lstm": (projected_lstm, IMAGE),
    "gru": (gru, IMAGE),
    "rnn": (rnn, IMAGE),
}


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
