"""Attention that was cut against torch's own, in which what is gone is zero."""

import copy
import io
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from lightning_prune.surgery.pruned_attention import (
    PrunedMultiheadAttention,
    adapt_attention,
    inner_widths,
)
from tests.surgery.attention_cuts import (
    BATCH,
    CALLS,
    CUTS,
    HEADS,
    LAYERS,
    NO_WEIGHTS,
    SEQUENCE,
    SOURCES,
    D,
    E,
    Kept,
    attention,
    cut,
    inputs,
    masked,
    narrowed,
    scrambled,
)

each_cut = pytest.mark.parametrize("kept", CUTS.values(), ids=CUTS)
each_layer = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


def narrow_inputs(values, kept):
    query, *others = values
    if kept.inputs is None:
        return [query, *others]
    packed = all(x.shape[-1] == E for x in others)
    return [x[..., list(kept.inputs)] if n == 0 or packed else x for n, x in enumerate(values)]


def pruned(layer, kept):
    """Return a cut layer of the class that was cut, where torch's own could compute it too."""
    layer = cut(layer, kept)
    layer.__class__ = PrunedMultiheadAttention
    return layer


def assert_same(found, expected, kept, per_head=False):
    output, weights = expected
    torch.testing.assert_close(found[0], output[..., list(kept.outputs)], rtol=0, atol=1e-12)
    assert (found[1] is None) == (weights is None)
    if weights is not None and per_head:
        weights = weights[..., list(kept.heads), :, :]
        torch.testing.assert_close(found[1], weights, rtol=0, atol=1e-12)


@each_layer
@each_cut
def test_cut_is_masked(options, kept):
    for call, batch_first in product(CALLS.values(), (True, False)):
        layer = attention(batch_first=batch_first, **options)
        wide, narrow = call.arguments(kept)
        values = inputs(layer)
        given = narrow_inputs(values, kept)
        if not batch_first:
            values, given = ([x.transpose(0, 1) for x in own] for own in (values, given))
        expected = masked(layer, kept)(*values, **wide)
        found = pruned(layer, kept)(*given, **narrow)
        assert_same(found, expected, kept, per_head="average_attn_weights" in call.options)
        if len(kept.heads) == HEADS and expected[1] is not None:
            torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)


@each_layer
@each_cut
def test_single_samples(options, kept):
    layer = attention(**options)
    values = [x[0] for x in inputs(layer)]
    for call in CALLS.values():
        wide, narrow = call.arguments(kept, batch=1)
        if call.padding:
            for own in (wide, narrow):
                own["key_padding_mask"] = own["key_padding_mask"][0]
        expected = masked(layer, kept)(*values, **wide)
        found = pruned(layer, kept)(*narrow_inputs(values, kept), **narrow)
        assert_same(found, expected, kept, per_head="average_attn_weights" in call.options)
        assert [t is not None and t.ndim for t in found] == [
            t is not None and t.ndim for t in expected
        ]


@each_cut
@pytest.mark.parametrize("options", [{}, {"bias": False}])
@pytest.mark.parametrize("need_weights", [False, True])
def test_self_attention_and_one_memory(options, kept, need_weights):
    layer = attention(batch_first=True, **options)
    x, memory, _ = inputs(layer)
    ours, theirs = pruned(layer, kept), masked(layer, kept)
    (a, b) = narrow_inputs([x, memory], kept)
    for given, wide in (((a, a, a), (x, x, x)), ((a, b, b), (x, memory, memory))):
        found = ours(*given, need_weights=need_weights)
        assert_same(found, theirs(*wide, need_weights=need_weights), kept)


@each_cut
def test_gradients_are_those_of_the_masked_layer(kept):
    layer = attention()
    wide, narrow = masked(layer, kept), pruned(layer, kept)
    values = [x.transpose(0, 1) for x in inputs(layer)]
    dy = torch.randn(SEQUENCE, BATCH, len(kept.outputs), dtype=torch.float64)
    for need_weights in (False, True):
        expected = wide(*values, need_weights=need_weights)[0][..., list(kept.outputs)]
        found = narrow(*narrow_inputs(values, kept), need_weights=need_weights)[0]
        wanted = torch.autograd.grad(expected, list(wide.parameters()), dy)
        given = torch.autograd.grad(found, list(narrow.parameters()), dy)
        holder = copy.deepcopy(layer)
        for parameter, gradient in zip(holder.parameters(), wanted, strict=True):
            parameter.data = gradient
        for own, gradient in zip(narrowed(holder, kept).parameters(), given, strict=True):
            torch.testing.assert_close(gradient, own.data, rtol=0, atol=1e-12)


def test_a_cut_layer_by_hand():
    """Loops over samples, heads and positions, of the two heads that stay."""
    layer, kept = attention(batch_first=True), CUTS["all"]
    query, key, value = (x.numpy() for x in narrow_inputs(inputs(layer), kept))
    narrow = cut(layer, kept)
    tensors = {name: p.detach().numpy() for name, p in narrow.named_parameters()}
    qk, v = len(kept.scores), len(kept.values)
    heads = len(kept.heads)
    ends = np.cumsum([heads * qk, heads * qk, heads * v])
    parts = zip((0, *ends), ends, strict=False)
    (wq, bq), (wk, bk), (wv, bv) = (
        (tensors["in_proj_weight"][a:b], tensors["in_proj_bias"][a:b]) for a, b in parts
    )
    expected = np.zeros((BATCH, SEQUENCE, len(kept.outputs)))
    for n in range(BATCH):
        for position in range(SEQUENCE):
            joined = []
            for head in range(heads):
                own, mine = slice(head * qk, (head + 1) * qk), slice(head * v, (head + 1) * v)
                q = wq[own] @ query[n, position] + bq[own]
                scores = [(wk[own] @ key[n, s] + bk[own]) @ q / np.sqrt(D) for s in range(SOURCES)]
                weights = np.exp(scores) / np.exp(scores).sum()
                joined += list(
                    sum(weights[s] * (wv[mine] @ value[n, s] + bv[mine]) for s in range(SOURCES))
                )
            expected[n, position] = tensors["out_proj.weight"] @ joined + tensors["out_proj.bias"]
    given = [torch.from_numpy(x) for x in (query, key, value)]
    for need_weights in (True, False):
        found = narrow(*given, need_weights=need_weights)[0].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_dropout_drops_weights_in_training_only():
    layer, kept = attention(batch_first=True, dropout=0.5), CUTS["heads"]
    narrow, values = cut(layer, kept).train(), inputs(layer)
    torch.manual_seed(0)
    _, weights = narrow(*values, average_attn_weights=False)
    zeros = float((weights == 0).double().mean())
    assert 0.3 < zeros < 0.7
    torch.manual_seed(0)
    first, again = (narrow(*values, need_weights=False)[0] for _ in range(2))
    assert not first.equal(again)
    narrow.eval()
    assert narrow(*values)[0].equal(narrow(*values)[0])


# --- the layer itself -------------------------------------------------------------------------


class Named(nn.MultiheadAttention):
    """A user's attention, with torch's forward pass."""


class Own(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)[0]


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, Named])
def test_a_cut_layer_is_still_itself(kind):
    layer = scrambled(kind(E, HEADS, batch_first=True)).double().eval()
    names, seen = [n for n, _ in layer.named_parameters()], []
    layer.register_forward_hook(lambda *given: seen.append(given[0]))
    assert adapt_attention(narrowed(layer, CUTS["heads"]))
    values = inputs(layer)
    expected = layer(*values)[0]
    assert seen == [layer]
    assert isinstance(layer, kind)
    assert isinstance(layer, PrunedMultiheadAttention)
    assert [n for n, _ in layer.named_parameters()] == names
    assert str(layer).startswith(
        "PrunedMultiheadAttention(" if kind is nn.MultiheadAttention else "Named("
    )
    layer._forward_hooks.clear()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert type(other) is type(layer)
        assert (other.num_heads, other.head_dim, other.embed_dim) == (2, D, E)
        assert other(*values)[0].equal(expected)
    kinds = type(layer)
    assert adapt_attention(layer)
    assert type(layer) is kinds


@pytest.mark.parametrize("name", ["nothing", "torch's"])
@pytest.mark.parametrize("kind", [nn.MultiheadAttention, Named])
def test_what_torch_can_compute_is_torchs_again(kind, name):
    layer, kept = scrambled(kind(E, HEADS, batch_first=True)).double().eval(), CUTS[name]
    values = inputs(layer)
    expected = masked(layer, kept)(*values)
    narrow = cut(layer, CUTS["nothing"])
    narrow = cut(narrow, Kept(heads=kept.heads))
    assert isinstance(narrow, PrunedMultiheadAttention) == (name != "nothing")
    narrow = cut(layer, kept)
    assert type(narrow) is kind
    with torch.no_grad():
        found = narrow(*narrow_inputs(values, kept))
    assert_same(found, expected, kept)


def test_widths_follow_the_tensors():
    layer = attention(kdim=7, vdim=9)
    layer.k_proj_weight = nn.Parameter(layer.k_proj_weight[:, :5])
    narrow = cut(layer, Kept(scores=(0, 1), inputs=tuple(range(6))))
    assert (narrow.embed_dim, narrow.kdim, narrow.vdim) == (6, 5, 9)
    assert inner_widths(narrow) == [8, 8, 12]
    assert narrow.extra_repr() == "6, num_heads=4, head_widths=(2, 3 of 3)"


def test_a_forward_pass_of_its_own_is_left_alone():
    layer = Own(E, HEADS)
    narrowed(layer, CUTS["heads"])
    assert not adapt_attention(layer)
    assert type(layer) is Own
    assert layer.embed_dim == E


def test_bad_calls_say_what_is_wrong():
    narrow = cut(attention(batch_first=True), CUTS["heads"])
    query, key, value = inputs(narrow)
    masks = torch.zeros(BATCH * HEADS, SEQUENCE, SOURCES)
    cases = [
        (ValueError, r"for each of the 2 heads that the layer has, \(4, 5, 6\)", masks),
        (ValueError, r"attn_mask is \(5, 5\): pass \(5, 6\)", torch.zeros(5, 5)),
        (TypeError, "a mask is torch.int64: pass bool", torch.zeros(5, 6, dtype=torch.int64)),
    ]
    for kind, message, mask in cases:
        with pytest.raises(kind, match=message):
            narrow(query, key, value, attn_mask=mask)
    with pytest.raises(ValueError, match=r"key_padding_mask is \(5, 6\): pass \(2, 6\)"):
        narrow(query, key, value, key_padding_mask=torch.zeros(5, 6))
    with pytest.raises(ValueError, match="pass attn_mask too"):
        narrow(query, key, value, is_causal=True)
    with pytest.raises(ValueError, match="as many keys as values"):
        narrow(query, key, value[:, :3])
    with pytest.raises(ValueError, match="pass three of 3 dimensions"):
        narrow(query[0], key, value)
    narrow.num_heads = 4
    with pytest.raises(ValueError, match="num_heads=4 does not divide the 6 rows"):
        narrow(query, key, value)


# --- what others do with it -------------------------------------------------------------------


class Classifier(nn.Module):
    """An encoder over tokens of 5 values, with attention to a memory."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, E)
        self.attend = nn.MultiheadAttention(E, HEADS, batch_first=True)
        self.cross = nn.MultiheadAttention(E, HEADS, kdim=5, vdim=5, batch_first=True)
        self.head = nn.Linear(E, 3)

    def forward(self, x):
        y = self.first(x)
        y = y + self.attend(y, y, y, need_weights=False)[0]
        mask = torch.ones(y.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        y = y + self.cross(y, x, x, attn_mask=mask)[0]
        return self.head(y.mean(1))


def cut_classifier(dtype=torch.float32):
    net = scrambled(Classifier()).to(dtype).eval()
    for layer, kept in ((net.attend, CUTS["heads"]), (net.cross, CUTS["widths of heads"])):
        assert adapt_attention(narrowed(layer, kept))
    return net


def test_torch_compile():
    net, x = cut_classifier(torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x), rtol=0, atol=1e-12)
    compiled(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_autocast():
    net, x = cut_classifier(), torch.randn(2, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), net(x), rtol=0, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    layer, kept = attention(batch_first=True), CUTS["all"]
    values = narrow_inputs(inputs(layer), kept)
    narrow = cut(layer, kept)
    for call in ("both", "weights"):
        arguments = CALLS[call].arguments(kept)[1]
        expected = narrow(*values, **arguments)[0]
        found = copy.deepcopy(narrow).to(dtype)(*(x.to(dtype) for x in values), **arguments)[0]
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05)


def test_onnx():
    runtime = pytest.importorskip("onnxruntime")
    net, x = cut_classifier(), torch.randn(3, 6, 5)
    session = runtime.InferenceSession(onnx_model(net, x), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input0": x.numpy()})
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=0, atol=1e-5)


def half(layer, kept):
    assert adapt_attention(narrowed(layer, kept))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
def test_encoders_do_not_take_their_fused_kernel(norm_first, padded):
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, norm_first=norm_first, batch_first=True)
    net = scrambled(nn.TransformerEncoder(layer, 2)).double().eval()
    wide, kept = copy.deepcopy(net), CUTS["heads"]
    for n in (0, 1):
        wide.layers[n].self_attn = masked(net.layers[n].self_attn, kept)
    half(net.layers[0].self_attn, kept)  # the second one is torch's
    wide.layers[1].self_attn = net.layers[1].self_attn
    x = torch.randn(BATCH, SOURCES, E, dtype=torch.float64)
    padding = None
    if padded:
        padding = torch.zeros(BATCH, SOURCES, dtype=torch.bool)
        padding[1, 4:] = True
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            expected = wide(x, src_key_padding_mask=padding)
            found = net(x, src_key_padding_mask=padding)
        if padding is not None:
            expected, found = (t.masked_fill(padding[..., None], 0) for t in (expected, found))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_encoder_and_decoder():
    net = nn.Transformer(E, HEADS, 1, 1, 16, batch_first=True)
    net = scrambled(net).double().eval()
    wide, kept = copy.deepcopy(net), CUTS["widths of heads"]
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.MultiheadAttention):
            owner, _, own = name.rpartition(".")
            setattr(wide.get_submodule(owner), own, masked(layer, kept))
            half(layer, kept)
    source = torch.randn(BATCH, SOURCES, E, dtype=torch.float64)
    target = torch.randn(BATCH, SEQUENCE, E, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(SEQUENCE, dtype=torch.float64)
    with torch.no_grad():
        arguments = {"tgt_mask": mask, "tgt_is_causal": True}
        expected, found = (n(source, target, **arguments) for n in (wide, net))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in CUTS if n != "nothing"])
def test_a_file_of_a_cut_layer_loads_into_the_dense_network(name):
    net, fresh = (track_architecture(scrambled(Classifier(), seed)) for seed in (0, 1))
    kept = Kept(CUTS[name].heads, CUTS[name].scores, CUTS[name].values)
    half(net.attend, kept)
    net.double(), fresh.double()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    assert str(fresh) == str(net)
    assert fresh(x).equal(net(x))
    dense = track_architecture(scrambled(Classifier(), 2)).double()
    fresh.load_state_dict(dense.state_dict())
    assert RECORD not in fresh.state_dict()
    assert type(fresh.attend) is nn.MultiheadAttention
    assert fresh(x).equal(dense(x))
    again = load_pruned_state_dict(scrambled(Classifier(), 3).double(), net.state_dict())
    assert again.missing_keys == []


def test_altered_files_are_refused():
    net = track_architecture(Classifier())
    half(net.attend, CUTS["heads"])
    state = net.state_dict()
    wrong = dict(state)
    wrong["attend.out_proj.weight"] = torch.zeros(E, 5)
    with pytest.raises(ValueError, match="the tensors of attend do not fit one another"):
        track_architecture(Classifier()).load_state_dict(wrong)
    net.attend.num_heads = 4
    with pytest.raises(ValueError, match=r"attend has rows .* of 6, 6 and 6, which is not 4 heads"):
        track_architecture(Classifier()).load_state_dict(net.state_dict())


def test_files_without_a_record_have_all_heads():
    """Rows do not say whether heads are gone or narrower; columns say all."""
    net, fresh = scrambled(Classifier()).double(), scrambled(Classifier(), 1).double()
    half(net.attend, CUTS["heads"])
    with pytest.raises(ValueError, match=r"attend.in_proj_weight is \(18, 12\) in the file and"):
        load_pruned_state_dict(fresh, net.state_dict())
    layer = scrambled(nn.MultiheadAttention(E, HEADS), 2).double()
    narrow = nn.Sequential(cut(layer, CUTS["inputs and outputs"]))
    dense = nn.Sequential(scrambled(nn.MultiheadAttention(E, HEADS), 3).double())
    load_pruned_state_dict(dense, narrow.state_dict())
    assert isinstance(dense[0], PrunedMultiheadAttention)
    values = [torch.randn(4, 2, 6, dtype=torch.float64)] * 3
    assert dense[0](*values)[0].equal(narrow[0](*values)[0])


def test_a_failed_load_leaves_the_class():
    net, fresh = track_architecture(Classifier()), Classifier()
    half(net.attend, CUTS["heads"])
    state = net.state_dict()
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"head\.bias"):
        load_pruned_state_dict(fresh, state)
    assert type(fresh.attend) is nn.MultiheadAttention
    assert fresh.attend.num_heads == HEADS


def test_need_weights_false_is_the_default_of_nothing():
    narrow = cut(attention(), CUTS["heads"])
    values = [x.transpose(0, 1) for x in inputs(narrow)]
    assert narrow(*values)[1].shape == (BATCH, SEQUENCE, SOURCES)
    assert narrow(*values, **NO_WEIGHTS)[1] is None
