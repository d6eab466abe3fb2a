"""Cuts of attention layers by hand: what is kept of each of their factors."""

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from lightning_prune.graph.layer_kinds import sync_sizes
from lightning_prune.surgery.pruned_attention import adapt_attention

E, HEADS, D = 12, 4, 3
SEQUENCE, SOURCES, BATCH = 5, 6, 2
ALL = tuple(range(E))


@dataclass(frozen=True)
class Kept:
    """Heads, their channels for scores and for values, channels of inputs and outputs."""

    heads: tuple[int, ...] = tuple(range(HEADS))
    scores: tuple[int, ...] = tuple(range(D))
    values: tuple[int, ...] = tuple(range(D))
    inputs: tuple[int, ...] | None = None
    outputs: tuple[int, ...] = ALL

    def rows(self, width: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([head * D + place for head in self.heads for place in width])


CUTS = {
    "nothing": Kept(),
    "heads": Kept(heads=(0, 3)),
    "one head": Kept(heads=(2,)),
    "inputs and outputs": Kept(inputs=(0, 2, 3, 7, 8, 11), outputs=(1, 2, 3, 4, 9)),
    "outputs": Kept(outputs=(0, 5, 6)),
    "widths of heads": Kept(scores=(0, 2), values=(1,)),
    "width of scores": Kept(scores=(1,)),
    "all": Kept((0, 1, 3), (0, 1), (2,), (0, 2, 3, 7, 8), (1, 2, 3, 4, 9, 10, 11)),
    "torch's": Kept(heads=(1, 2), inputs=(0, 2, 3, 7, 8, 11), outputs=(0, 2, 3, 7, 8, 11)),
}

LAYERS = {
    "packed": {},
    "no bias": {"bias": False},
    "other inputs": {"kdim": 7, "vdim": 9},
    "other inputs, no bias": {"kdim": 7, "bias": False},
    "bias of keys": {"add_bias_kv": True},
    "zero keys": {"add_zero_attn": True},
    "everything": {"add_bias_kv": True, "add_zero_attn": True, "kdim": 7, "vdim": 7},
}


def scrambled(layer: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return layer


def attention(**options) -> nn.MultiheadAttention:
    return scrambled(nn.MultiheadAttention(E, HEADS, **options)).double().eval()


def places(layer: nn.MultiheadAttention, kept: Kept) -> dict[str, dict[int, torch.Tensor]]:
    """Return what stays of each tensor."""
    scores, values = kept.rows(kept.scores), kept.rows(kept.values)
    rows = torch.cat([scores, scores + E, values + 2 * E])
    index = {
        "in_proj_weight": {0: rows},
        "in_proj_bias": {0: rows},
        "q_proj_weight": {0: scores},
        "k_proj_weight": {0: scores},
        "v_proj_weight": {0: values},
        "bias_k": {2: scores},
        "bias_v": {2: values},
        "out_proj.weight": {0: torch.tensor(kept.outputs), 1: values},
        "out_proj.bias": {0: torch.tensor(kept.outputs)},
    }
    if kept.inputs is not None:
        for name in ("in_proj_weight", "q_proj_weight"):
            index[name][1] = torch.tensor(kept.inputs)
    own = dict(layer.named_parameters())
    return {name: dims for name, dims in index.items() if name in own}


@torch.no_grad()
def masked(layer: nn.MultiheadAttention, kept: Kept) -> nn.MultiheadAttention:
    layer = copy.deepcopy(layer)
    for name, dims in places(layer, kept).items():
        values = layer.get_parameter(name)
        for dim, index in dims.items():
            gone = torch.ones(values.shape[dim], dtype=torch.bool)
            gone[index] = False
            values.index_fill_(dim, gone.nonzero().flatten(), 0)
    return layer


@torch.no_grad()
def narrowed(layer: nn.MultiheadAttention, kept: Kept) -> nn.MultiheadAttention:
    """Cut tensors and the number of heads of a live layer, without adapting it."""
    for name, dims in places(layer, kept).items():
        values = layer.get_parameter(name)
        for dim, index in dims.items():
            values = values.index_select(dim, index)
        owner, _, own = name.rpartition(".")
        setattr(layer.get_submodule(owner), own, nn.Parameter(values))
    layer.num_heads = len(kept.heads)
    sync_sizes(layer.out_proj)
    return layer


def cut(layer: nn.MultiheadAttention, kept: Kept) -> nn.MultiheadAttention:
    layer = narrowed(copy.deepcopy(layer), kept)
    assert adapt_attention(layer)
    return layer


def inputs(layer: nn.MultiheadAttention, seed: int = 3) -> list[torch.Tensor]:
    """Return query, key and value, (B, L, C)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(SEQUENCE, layer.embed_dim), (SOURCES, layer.kdim), (SOURCES, layer.vdim)]
    return [
        torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64) for shape in shapes
    ]


@dataclass(frozen=True)
class Call:
    """How a layer is called: with which masks, for which weights."""

    options: dict = field(default_factory=dict)
    attn_mask: str = ""
    padding: str = ""
    per_head: bool = False

    def arguments(self, kept: Kept, batch: int = BATCH) -> tuple[dict, dict]:
        """Return the arguments for all heads, and for those that are kept."""
        generator = torch.Generator().manual_seed(5)
        wide = dict(self.options)
        if self.attn_mask:
            shape = (batch, HEADS, SEQUENCE, SOURCES) if self.per_head else (SEQUENCE, SOURCES)
            wide["attn_mask"] = _mask(self.attn_mask, shape, generator)
        if self.padding:
            wide["key_padding_mask"] = _mask(self.padding, (batch, SOURCES), generator)
        narrow = dict(wide)
        if self.per_head:
            narrow["attn_mask"] = wide["attn_mask"][:, list(kept.heads)].flatten(0, 1)
            wide["attn_mask"] = wide["attn_mask"].flatten(0, 1)
        return wide, narrow


def _mask(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if kind == "causal":
        return torch.ones(shape, dtype=torch.bool).triu(1)
    if kind == "bool":
        seen = torch.rand(shape, generator=generator) < 0.6
        seen[..., 0] = True
        return ~seen
    return torch.randn(shape, generator=generator, dtype=torch.float64)


NO_WEIGHTS = {"need_weights": False}
CALLS = {
    "weights": Call(),
    "weights of heads": Call({"average_attn_weights": False}),
    "no weights": Call(NO_WEIGHTS),
    "bool mask": Call(NO_WEIGHTS, "bool"),
    "float mask": Call({}, "float"),
    "bool mask of heads": Call(NO_WEIGHTS, "bool", per_head=True),
    "float mask of heads": Call({}, "float", per_head=True),
    "bool padding": Call(NO_WEIGHTS, padding="bool"),
    "float padding": Call({}, padding="float"),
    "both": Call(NO_WEIGHTS, "bool", "bool"),
    "both, with weights": Call({}, "float", "float"),
    "causal": Call({**NO_WEIGHTS, "is_causal": True}, "causal"),
    "causal, with weights": Call({"is_causal": True}, "causal"),
    "causal, with padding": Call({**NO_WEIGHTS, "is_causal": True}, "causal", "bool"),
}
