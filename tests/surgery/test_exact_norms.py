"""A norm from which channels were cut against the same norm in which they are zeros."""

import copy
import io
import pickle
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.convnext import LayerNorm2d

from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.surgery.architecture import RECORD, read_record, track_architecture
from lightning_prune.surgery.exact_norms import count_cut_as_zeros, set_count, zero_count
from lightning_prune.surgery.json_tensor import to_json_tensor
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict

C = 12
ANY = torch.tensor([0, 1, 2, 5, 7, 10, 11])
EVEN = torch.tensor([0, 2, 4, 5, 6, 8, 10, 11])  # two of each three
WHOLE = torch.tensor([0, 1, 2, 6, 7, 8])  # two of four groups of three


class FirstOrLast(nn.Module):
    """As the ConvNeXt of many repositories writes it: no subclass of anything of torch's."""

    def __init__(self, width, first, eps=1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps, self.first, self.normalized_shape = eps, first, (width,)

    def forward(self, x):
        if not self.first:
            return nn.functional.layer_norm(
                x, self.normalized_shape, self.weight, self.bias, self.eps
            )
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Rms(nn.Module):
    """As language models write it; of some, the weight is stored less 1."""

    def __init__(self, width, offset=0.0):
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.ones(width)), offset
        self.variance_epsilon = 1e-5

    def forward(self, hidden_states):
        x = hidden_states
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return x * (self.offset + self.weight)


class Response(nn.Module):
    """The global response norm of ConvNeXt V2, channels last."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.eps = 1e-6

    def forward(self, x):
        response = x.norm(p=2, dim=(1, 2), keepdim=True)
        scale = response / (response.mean(-1, keepdim=True) + self.eps)
        return x + self.weight * x * scale + self.bias


class Noisy(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x).sigmoid()


class NormAct(nn.GroupNorm):
    """A norm that ends in an activation, as timm has them."""

    def __init__(self, groups, width):
        super().__init__(groups, width)
        self.drop, self.act = nn.Dropout(0.5), nn.SiLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


NORMS = {
    "layer": (lambda: nn.LayerNorm(C), "last", ANY),
    "layer, no bias": (lambda: nn.LayerNorm(C, bias=False, eps=0.1), "last", ANY),
    "layer, no tensors": (lambda: nn.LayerNorm(C, elementwise_affine=False), "last", ANY),
    "rms": (lambda: nn.RMSNorm(C), "last", ANY),
    "rms, no tensors": (lambda: nn.RMSNorm(C, 0.01, elementwise_affine=False), "last", ANY),
    "group 1": (lambda: nn.GroupNorm(1, C), "first", ANY),
    "group, uneven": (lambda: nn.GroupNorm(4, C), "first", ANY),
    "group, no tensors": (lambda: nn.GroupNorm(4, C, affine=False), "first", ANY),
    "group, even": (lambda: nn.GroupNorm(4, C), "first", EVEN),
    "group, whole": (lambda: nn.GroupNorm(4, C), "first", WHOLE),
    "group, tokens": (lambda: nn.GroupNorm(4, C), "tokens", ANY),
    "group, activation": (lambda: NormAct(4, C), "first", EVEN),
    "torchvision's": (lambda: LayerNorm2d(C, eps=1e-6), "first", ANY),
    "user's, first": (lambda: FirstOrLast(C, first=True), "first", ANY),
    "user's, last": (lambda: FirstOrLast(C, first=False), "last", ANY),
    "user's rms": (lambda: Rms(C), "last", ANY),
    "response": (lambda: Response(C), "space", ANY),
    "user's rms less 1": (lambda: Rms(C, offset=1.0), "last", ANY),
}
each_norm = pytest.mark.parametrize(("make", "layout", "kept"), NORMS.values(), ids=NORMS)


def scrambled(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def inputs(layout, kept, dtype=torch.float64, width=C):
    """An input that is zero in all channels but the kept ones, and its kept part."""
    shape, dim = {
        "tokens": ((2, width), 1),
        "last": ((2, 5, width), -1),
        "space": ((2, 4, 5, width), -1),
    }.get(layout, ((2, width, 4, 3), 1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(9)) + 0.6
    narrow = x.to(dtype).index_select(dim, kept)
    return torch.zeros(shape, dtype=dtype).index_copy(dim, kept, narrow), narrow, dim


@torch.no_grad()
def narrowed(layer, kept):
    for name, value in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(value.index_select(0, kept)))
    return layer


def cut(layer, kept, before=C, norms="exact"):
    assert count_cut_as_zeros(narrowed(layer, kept), before, kept, norms)
    return layer


@each_norm
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_cut_is_masked_and_so_are_its_gradients(make, layout, kept, dtype, atol):
    layer = scrambled(make()).to(dtype).eval()
    wide, x, dim = inputs(layout, kept, dtype)
    wide.requires_grad_(), x.requires_grad_()
    expected = layer(wide).index_select(dim, kept)
    dy = torch.randn(expected.shape, dtype=dtype)
    tensors = [wide, *layer.parameters()]
    gradients = torch.autograd.grad(expected, tensors, dy)
    narrow = cut(copy.deepcopy(layer), kept)
    found = narrow(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    again = torch.autograd.grad(found, [x, *narrow.parameters()], dy)
    for given, wanted, axis in zip(again, gradients, [dim] + [0] * 2, strict=False):
        largest = float(wanted.abs().max())
        torch.testing.assert_close(
            given, wanted.index_select(axis, kept), rtol=0, atol=atol * max(1, largest)
        )
    with torch.no_grad():
        torch.testing.assert_close(narrow(x), expected, rtol=0, atol=atol)


@each_norm
def test_two_cuts_in_a_row_count_all_that_is_gone(make, layout, kept):
    layer = scrambled(make()).double().eval()
    second = torch.tensor([0, 1, 2, 4]) if len(kept) != 6 else torch.tensor([0, 1, 2])
    left = kept[second]
    wide, x, dim = inputs(layout, left)
    expected = layer(wide).index_select(dim, left)
    narrow = cut(cut(copy.deepcopy(layer), kept), second, before=len(kept))
    torch.testing.assert_close(narrow(x), expected, rtol=0, atol=1e-10)


@each_norm
def test_plain_takes_the_statistics_of_what_is_left(make, layout, kept):
    layer = scrambled(make()).double().eval()
    kind, (_, x, _) = type(layer), inputs(layout, kept)
    narrow = narrowed(copy.deepcopy(layer), kept)
    uneven = kept is ANY and isinstance(layer, nn.GroupNorm) and layer.num_groups > 1
    accepted = count_cut_as_zeros(narrow, C, kept, norms="plain")
    assert accepted != uneven
    assert type(narrow) is kind
    assert zero_count(narrow) is None
    if accepted:
        assert narrow(x).shape == x.shape


@each_norm
def test_a_cut_norm_is_still_itself(make, layout, kept):
    layer, (_, x, _) = scrambled(make()).double().eval(), inputs(layout, kept)
    seen, kind, name = [], type(layer), str(layer).split("(")[0]
    layer.register_forward_hook(lambda *given: seen.append(given[0]))
    narrow = cut(layer, kept)
    expected = narrow(x)
    assert isinstance(narrow, kind)
    assert seen == [layer]
    assert str(narrow).startswith(name)
    layer._forward_hooks.clear()
    for other in (copy.deepcopy(narrow), pickle.loads(pickle.dumps(narrow))):
        assert type(other) is type(narrow)
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    set_count(narrow, None)
    assert type(narrow) is kind
    assert not list(narrow.buffers())
    assert not narrow._forward_pre_hooks


class Each(nn.Module):
    """All norms at once: the exporter takes seconds a file."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(scrambled(make()) for make, _, _ in NORMS.values())

    def forward(self, *inputs):
        return tuple(norm(x) for norm, x in zip(self.norms, inputs, strict=True))


def test_onnx_runtime_gives_the_same():
    net, given, expected = Each().eval(), [], []
    for norm, (_, layout, kept) in zip(net.norms, NORMS.values(), strict=True):
        wide, x, dim = inputs(layout, kept, torch.float32)
        given.append(x)
        expected.append(norm(wide).index_select(dim, kept).detach())
        cut(norm, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        session = onnxruntime.InferenceSession(onnx_model(net, tuple(given), batch=None))
    feed = {n.name: x.numpy() for n, x in zip(session.get_inputs(), given, strict=True)}
    for name, found, wanted in zip(NORMS, session.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5, err_msg=name)


@each_norm
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_precision(make, layout, kept, dtype):
    layer = scrambled(make()).to(dtype).eval()
    _, x, _ = inputs(layout, kept, dtype)
    narrow = cut(layer, kept)
    found = narrow(x)
    assert found.dtype == dtype
    same = copy.deepcopy(narrow).double()(x.double())
    torch.testing.assert_close(found.double(), same, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["layer", "rms", "group, uneven", "group, even", "torchvision's"])
def test_autocast_changes_nothing(name):
    make, layout, kept = NORMS[name]
    layer, (_, x, _) = cut(scrambled(make()), kept), inputs(layout, kept, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        found.sum().backward()
    torch.testing.assert_close(found.float(), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["layer", "rms", "group, uneven", "group, even", "torchvision's"])
def test_compiled_it_gives_the_same(name):
    make, layout, kept = NORMS[name]
    layer, (_, x, _) = cut(scrambled(make()), kept), inputs(layout, kept, torch.float32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_compiled_layer_follows_its_cut():
    layer = scrambled(nn.LayerNorm(C)).double()
    compiled = torch.compile(layer, backend="eager")
    wide, x, _ = inputs("last", ANY)
    expected = compiled(wide)[..., ANY]
    cut(layer, ANY)
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=1e-10)


def test_a_layer_with_a_forward_of_its_own_is_left_alone():
    layer = nn.LayerNorm(C)
    layer.forward = layer.forward
    assert not count_cut_as_zeros(layer, C, ANY)


def test_a_layer_norm_of_a_shape_counts_what_is_gone_of_each_axis():
    layer = scrambled(nn.LayerNorm((6, 4, 5))).double()
    kept, rows = torch.tensor([0, 2, 3]), torch.tensor([1, 2])
    x = torch.randn(2, 3, 2, 5).double()
    wide = torch.zeros(2, 6, 4, 5).double()
    wide[:, kept[:, None], rows] = x
    expected = layer(wide)[:, kept[:, None], rows]
    narrow = cut(layer, kept, 6)
    for name in ("weight", "bias"):
        values = getattr(narrow, name).detach().index_select(1, rows)
        setattr(narrow, name, nn.Parameter(values))
    assert count_cut_as_zeros(narrow, 4, rows)
    torch.testing.assert_close(narrow(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_encoder_layer_calls_its_norms(masked):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval()
    for layer in net.layers:
        layer.norm1, layer.norm2 = (
            cut(scrambled(nn.LayerNorm(16)), torch.arange(8), 16) for _ in range(2)
        )
    x = torch.randn(2, 3, 8)
    padding = torch.tensor([[False, False, True], [False] * 3]) if masked else None
    slow = net(x, src_key_padding_mask=padding)  # gradients are wanted: not fused
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        fast = net(x, src_key_padding_mask=padding)
    real = slice(None) if padding is None else ~padding
    torch.testing.assert_close(fast[real], slow[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(C), nn.InstanceNorm2d(C, affine=True), nn.Linear(C, C), nn.Identity(),
        nn.PReLU(C), nn.Softmax(-1), Noisy(C), nn.LocalResponseNorm(2),
        nn.LayerNorm((C, 3), elementwise_affine=False),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
@pytest.mark.parametrize("norms", ["exact", "plain"])
def test_what_is_no_known_norm_is_left_alone(layer, norms):
    before, state = str(layer), copy.deepcopy(layer.state_dict())
    assert not count_cut_as_zeros(layer, C, torch.arange(5), norms)
    assert str(layer) == before
    assert all(torch.equal(layer.state_dict()[name], state[name]) for name in state)


def test_a_norm_that_loses_nothing_stays_what_it_is():
    layer = nn.LayerNorm(C)
    assert count_cut_as_zeros(layer, C, torch.arange(C))
    assert type(layer) is nn.LayerNorm


def test_whole_groups_need_no_help():
    layer = cut(nn.GroupNorm(4, C), WHOLE)
    assert type(layer) is nn.GroupNorm
    assert (layer.num_groups, layer.num_channels) == (2, 6)


@pytest.mark.parametrize("kept", [[], [3, 1], [0, 0], [-1, 2], [0, 12]])
def test_a_selection_that_is_none_is_one_clear_error(kept):
    with pytest.raises(ValueError, match=r"kept is \[.* of 12 channels: pass ascending"):
        count_cut_as_zeros(nn.LayerNorm(C), C, torch.tensor(kept, dtype=torch.int64))


def test_a_group_norm_of_another_width_is_one_clear_error():
    layer = cut(nn.GroupNorm(4, C), EVEN)
    with pytest.raises(ValueError, match="of 8 channels cannot have had 12"):
        count_cut_as_zeros(layer, C, ANY)


# --- files ------------------------------------------------------------------------------------


class Net(nn.Module):
    """A norm between two linear layers over its channels."""

    def __init__(self, make, layout):
        super().__init__()
        self.before, self.norm, self.after = nn.Linear(3, C), make(), nn.Linear(C, 2)
        self.layout = layout

    def forward(self, x):
        x = self.before(x)
        if self.layout == "first":
            return self.after(self.norm(x.movedim(-1, 1)).movedim(1, -1))
        return self.after(
            self.norm(x) if self.layout == "space" else self.norm(x.flatten(0, -2)).view(x.shape)
        )


def cut_net(make, layout, kept, seed=0, before=C, net=None):
    net = net or track_architecture(scrambled(Net(make, layout), seed).eval())
    narrowed(net.before, kept)
    net.after.weight = nn.Parameter(net.after.weight.detach()[:, kept])
    net.before.out_features = net.after.in_features = len(kept)
    cut(net.norm, kept, before)
    return net


def images():
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(3))


@each_norm
@pytest.mark.parametrize("how", ["tracked", "load_pruned_state_dict", "averaged"])
def test_a_file_of_a_cut_model_loads_into_the_dense_one(make, layout, kept, how):
    net, fresh = cut_net(make, layout, kept), scrambled(Net(make, layout), 1).eval()
    if how == "averaged":
        source, fresh = AveragedModel(net), AveragedModel(track_architecture(fresh))
    else:
        source = net
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    if how == "load_pruned_state_dict":
        load_pruned_state_dict(fresh, state)
    else:
        (fresh if how == "averaged" else track_architecture(fresh)).load_state_dict(state)
    torch.testing.assert_close(fresh(images()), source(images()), rtol=0, atol=0)
    assert str(fresh) == str(source)
    second = torch.tensor([0, 1, 2, 4]) if len(kept) != 6 else torch.tensor([0, 1, 2])
    if how != "averaged":
        again = [cut_net(make, layout, second, before=len(kept), net=n) for n in (net, fresh)]
        torch.testing.assert_close(again[0](images()), again[1](images()), rtol=0, atol=0)


@each_norm
def test_a_cut_model_follows_wider_narrower_and_dense_files(make, layout, kept):
    dense = track_architecture(scrambled(Net(make, layout), 2).eval())
    state, text, expected = copy.deepcopy(dense.state_dict()), str(dense), dense(images())
    narrow = cut_net(make, layout, kept)
    saved = copy.deepcopy(narrow.state_dict())
    net = cut_net(make, layout, kept)
    net.load_state_dict(state)
    assert str(net) == text
    assert RECORD not in net.state_dict()
    torch.testing.assert_close(net(images()), expected, rtol=0, atol=0)
    net.load_state_dict(saved)
    assert str(net) == str(narrow)
    torch.testing.assert_close(net(images()), narrow(images()), rtol=0, atol=0)


def altered(name, **changes):
    net = cut_net(*NORMS[name])
    state = dict(net.state_dict())
    record = read_record(state)
    own = record["attributes"]["norm"]
    for key, value in changes.items():
        own[key] = value
        if value is None:
            del own[key]
    return net, state | {RECORD: to_json_tensor(record)}


HOSTILE = {
    "more": ("layer", {"counted": C + 1}, "counted is 13 in the file and 12 when dense"),
    "fewer": ("layer", {"counted": 7}, "counted is 7 in the file and 12 when dense"),
    "huge": ("layer", {"counted": 10**12}, "counted is 1000000000000 in the file"),
    "float": ("layer", {"counted": 12.0}, "unreadable"),
    "zero": ("layer", {"counted": 0}, "unreadable"),
    "true": ("layer", {"counted": True}, "unreadable"),
    "list": ("layer", {"counted": [12]}, "unreadable"),
    "widths of a layer norm": ("layer", {"widths": [7]}, "of no group norm"),
    "group": ("group, even", {"counted": 2}, "counted is 2 in the file and 3 when dense"),
    "sum": ("group, uneven", {"widths": [3, 1, 1, 1]}, "not 7 channels in 4 groups of at most 3"),
    "wide": ("group, uneven", {"widths": [4, 1, 1, 1]}, "of at most 3"),
    "too many": ("group, uneven", {"widths": [1] * 7}, "not 7 channels in 4 groups"),
    "negative": ("group, uneven", {"widths": [3, 3, 3, -2]}, "unreadable"),
    "an int": ("group, uneven", {"widths": 7}, "unreadable"),
    "no list": ("group, uneven", {"widths": {"a": 7}}, "unreadable"),
    "none": ("group, uneven", {"widths": []}, "unreadable"),
    "uncounted": ("group, uneven", {"counted": None}, "counted is None in the file"),
    "groups": ("group, even", {"num_groups": 3}, r"not 8 channels in 3 groups"),
    "channels": ("layer, no tensors", {"channels": 13}, "channels is 13 in the file and 12"),
    "no channels": ("layer", {"channels": 4}, "channels is 4 in the file and nothing when dense"),
}


@pytest.mark.parametrize(("name", "changes", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("plain", [False, True], ids=["load_state_dict", "load_pruned_state_dict"])
def test_a_count_that_no_cut_makes_is_refused_and_nothing_changed(name, changes, message, plain):
    make, layout, _ = NORMS[name]
    _, state = altered(name, **changes)
    fresh = Net(make, layout) if plain else track_architecture(Net(make, layout))
    text = str(fresh)
    with pytest.raises(ValueError, match=message):
        load_pruned_state_dict(fresh, state) if plain else fresh.load_state_dict(state)
    assert str(fresh) == text


def test_a_count_of_what_is_no_norm_is_refused():
    net = cut_net(*NORMS["layer"])
    record = read_record(net.state_dict())
    record["attributes"]["after"] = {"counted": C}
    state = net.state_dict() | {RECORD: to_json_tensor(record)}
    with pytest.raises(ValueError, match="after counts cut channels in the file and is no norm"):
        track_architecture(Net(*NORMS["layer"][:2])).load_state_dict(state)


def test_a_refused_file_leaves_a_cut_model_as_it_was():
    make, layout, kept = NORMS["layer"]
    net = cut_net(make, layout, kept)
    text, expected = str(net), net(images())
    dense = dict(track_architecture(Net(make, layout)).state_dict())
    dense.pop("after.bias")
    with pytest.raises(RuntimeError, match="Missing key"):
        load_pruned_state_dict(net, dense)
    assert str(net) == text
    torch.testing.assert_close(net(images()), expected, rtol=0, atol=0)


# --- classes of other packages ----------------------------------------------------------------

TIMM = {
    "GroupNorm": ("first", EVEN), "GroupNorm1": ("first", ANY), "LayerNorm": ("last", ANY),
    "LayerNormFp32": ("last", ANY), "LayerNorm2d": ("first", ANY), "LayerNormExp2d": ("first", ANY),
    "LayerNorm2dFp32": ("first", ANY), "RmsNorm": ("last", ANY), "RmsNormFp32": ("last", ANY),
    "RmsNorm2d": ("first", ANY), "RmsNorm2dFp32": ("first", ANY), "SimpleNorm": ("last", ANY),
    "SimpleNormFp32": ("last", ANY), "SimpleNorm2d": ("first", ANY), "LayerNormAct": ("last", ANY),
    "SimpleNorm2dFp32": ("first", ANY), "GroupNorm1Act": ("first", ANY),
    "LayerNormAct2d": ("first", ANY), "RmsNormAct": ("last", ANY), "RmsNormAct2d": ("first", ANY),
}  # fmt: skip


def check(layer, layout, kept):
    layer = scrambled(layer).eval()
    wide, x, dim = inputs(layout, kept, torch.float32)
    expected = layer(wide).index_select(dim, kept)
    narrow = cut(copy.deepcopy(layer), kept)
    torch.testing.assert_close(narrow(x), expected, rtol=0, atol=2e-5)
    assert isinstance(narrow, type(layer))


@pytest.mark.parametrize("name", TIMM)
def test_timms_norms(name):
    pytest.importorskip("timm")
    from timm.layers import norm, norm_act

    kind = getattr(norm, name, None) or getattr(norm_act, name)
    arguments = {"num_groups": 4} if name == "GroupNorm" else {}
    check(kind(C, **arguments), *TIMM[name])


@pytest.mark.parametrize("channels_last", [False, True])
def test_timms_response_norm(channels_last):
    pytest.importorskip("timm")
    from timm.layers.grn import GlobalResponseNorm

    norm = GlobalResponseNorm(C, channels_last=channels_last)
    check(norm, "space" if channels_last else "first", ANY)


@pytest.mark.parametrize(
    ("module", "name", "arguments", "layout"),
    [
        ("llama.modeling_llama", "LlamaRMSNorm", {}, "last"),
        ("mistral.modeling_mistral", "MistralRMSNorm", {}, "last"),
        ("gemma.modeling_gemma", "GemmaRMSNorm", {}, "last"),
        ("t5.modeling_t5", "T5LayerNorm", {}, "last"),
        ("convnext.modeling_convnext", "ConvNextLayerNorm", {}, "last"),
        (
            "convnext.modeling_convnext", "ConvNextLayerNorm",
            {"data_format": "channels_first"}, "first",
        ),
    ],
)  # fmt: skip
def test_norms_of_transformers(module, name, arguments, layout):
    pytest.importorskip("transformers")
    found = __import__(f"transformers.models.{module}", fromlist=[name])
    check(getattr(found, name)(C, **arguments), layout, ANY)
