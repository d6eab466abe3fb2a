"""Multi-head attention whose heads, their widths and the embedding were cut apart."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prune.functional.head_attention import attend_heads, mask_of_heads

_PLAIN = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """Attention whose inner width has nothing to do with the width of its inputs and outputs.

    torch's own forward pass wants as many rows in each projection as inputs have channels. This
    one takes what the tensors say: ``num_heads`` heads, whose queries and keys may have another
    width than their values, inputs of any width, outputs of any other. Scores are scaled by
    ``head_dim ** -0.5`` of the head as it was built, so that channels that are gone count as the
    zeros they were. All arguments mean what they mean in ``nn.MultiheadAttention``, with one
    difference: a mask for each head, ``attn_mask`` (N H, L, S), has those of the H heads that are
    left.

    Live layers become one by ``adapt_attention``; it has no constructor of its own.

    Attributes:
        num_heads: Heads that are left.
        head_dim: Channels that a head had when dense.
        embed_dim: Channels of the queries' inputs; ``kdim`` and ``vdim`` those of the others.

    Source: A. Vaswani et al., 2017, Attention Is All You Need, arXiv 1706.03762.
    """

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Keep ``nn.TransformerEncoderLayer`` from its fused kernel, which wants one width."""
        return False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as ``nn.MultiheadAttention`` does.

        Args:
            query: (N, L, C) if ``batch_first``, else (L, N, C); (L, C) of a single sample.
            key: (N, S, C), (S, N, C) or (S, C).
            value: As ``key``.
            key_padding_mask: (N, S), or (S) of a single sample; bool (True = not seen) or added.
            need_weights: Return weights too.
            attn_mask: (L, S), or (N H, L, S) for each of the H heads that are left.
            average_attn_weights: Return the mean of the weights of all heads.
            is_causal: ``attn_mask`` is the causal mask.

        Returns:
            Outputs, shaped like ``query`` but for their width; and weights (N, L, S), or
            (N, H, L, S) where they are not averaged, or None. A single sample has no N.

        Raises:
            ValueError: tensors do not fit one another; the message names them.
            TypeError: a mask is neither bool nor floating point.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal says that attn_mask is causal: pass attn_mask too")
        masks = (key_padding_mask, attn_mask)
        if query.is_nested or key.is_nested or value.is_nested:
            if any(mask is not None for mask in masks) or need_weights:
                raise ValueError("nested tensors go without masks and with need_weights=False")
            return self._nested(query, key, value), None
        _check_inputs(query, key, value)
        if query.ndim == 2:
            query, key, value = _each(_batch_of_one, query, key, value)
            padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
            output, weights = self._attend(
                query, key, value, padding, attn_mask, True, is_causal, need_weights
            )
            output, weights = output.squeeze(0), None if weights is None else weights.squeeze(0)
        else:
            output, weights = self._attend(
                query, key, value, *masks, self.batch_first, is_causal, need_weights
            )
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=-3)
        return output, weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        attn_mask: Tensor | None,
        batch_first: bool,
        is_causal: bool,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend in batches; weights are those of all heads."""
        q, k, v = self._projected(query, key, value)
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (_with_last(t, b, batch_first) for t, b in ((k, self.bias_k), (v, self.bias_v)))
            extra += 1
        q, k, v = (self._heads(t, batch_first) for t in (q, k, v))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        if is_causal and padding is None and not need_weights:
            attn_mask = None
        else:
            is_causal = False
        scores = (q.shape[0], q.shape[1], q.shape[2], k.shape[2] - extra)
        mask = mask_of_heads(attn_mask, padding, scores, query.dtype, extra)
        dropout = self.dropout if self.training else 0.0
        y, weights = attend_heads(
            q, k, v, self.head_dim**-0.5, mask, is_causal, dropout, need_weights
        )
        y = y.permute(0, 2, 1, 3) if batch_first else y.permute(2, 0, 1, 3)
        return F.linear(y.flatten(2), self.out_proj.weight, self.out_proj.bias), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Return queries, keys and values of all heads, side by side in the last dimension."""
        rows = inner_widths(self)
        packed, bias = self.in_proj_weight, self.in_proj_bias
        if packed is not None and query is key and key is value:
            joined: Sequence[Tensor] = F.linear(query, packed, bias).split(rows, dim=-1)
            return joined
        biases = (None, None, None) if bias is None else bias.split(rows)
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if packed is not None:
            weights = packed.split(rows)
        inputs = zip((query, key, value), weights, biases, strict=True)
        return [F.linear(x, weight, own) for x, weight, own in inputs]

    def _heads(self, x: Tensor, batch_first: bool) -> Tensor:
        """Return (N, H, L, D) of heads that are side by side."""
        if x.shape[-1] % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide the {x.shape[-1]} rows that a "
                "projection of this layer has: set it to the number of heads that are left"
            )
        x = x.unflatten(-1, (self.num_heads, -1))
        return x.permute(0, 2, 1, 3) if batch_first else x.permute(1, 2, 0, 3)

    def _nested(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        inputs = _each(lambda x: x.unbind(), query, key, value)
        parts = [self.forward(*own, need_weights=False)[0] for own in zip(*inputs, strict=True)]
        return torch.nested.as_nested_tensor(parts, layout=query.layout)

    def extra_repr(self) -> str:
        """Return how many heads are left, and their widths."""
        queries, _, values = inner_widths(self)
        widths = f"{queries // self.num_heads}, {values // self.num_heads} of {self.head_dim}"
        return f"{self.embed_dim}, num_heads={self.num_heads}, head_widths=({widths})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        made: tuple[Any, ...] = super().__reduce_ex__(protocol)  # type: ignore[assignment]
        own = type(self)
        if own is PrunedMultiheadAttention:
            return made
        return (_empty, (own.__mro__[2],), *made[2:])


def adapt_attention(layer: nn.MultiheadAttention) -> bool:
    """Make attention whose tensors, or whose ``num_heads``, were changed compute with what is left.

    The layer stays the same object, with its tensors, hooks and names; ``embed_dim``, ``kdim`` and
    ``vdim`` are set from its tensors. Where torch's own forward pass cannot compute with them its
    class becomes ``PrunedMultiheadAttention``; where it can (half the heads and half the channels,
    or nothing cut) the class is torch's again. Calling it again changes nothing.

    Args:
        layer: The layer, with the tensors that it has after the cut, and ``num_heads`` set.

    Returns:
        Whether the layer can compute: False, and nothing was changed, where its class has a forward
        pass of its own.

    >>> layer = nn.MultiheadAttention(8, num_heads=4, bias=False)
    >>> rows = torch.arange(24).view(3, 4, 2)[:, :2].flatten()  # two heads of four
    >>> layer.in_proj_weight = nn.Parameter(layer.in_proj_weight[rows])
    >>> layer.out_proj.weight = nn.Parameter(layer.out_proj.weight[:, :4])
    >>> layer.num_heads = 2
    >>> adapt_attention(layer), layer(*torch.zeros(3, 5, 1, 8))[0].shape, layer.extra_repr()
    (True, torch.Size([5, 1, 8]), '8, num_heads=2, head_widths=(2, 2 of 2)')
    """
    own = next((kind for kind, pruned in _classes.items() if pruned is type(layer)), type(layer))
    if own.forward is not nn.MultiheadAttention.forward:
        return False
    weights = [getattr(layer, name) for name in _PLAIN]
    packed, *separate = (None if w is None else w.shape[1] for w in weights)
    widths = [packed] * 3 if packed is not None else separate
    layer.embed_dim, layer.kdim, layer.vdim = widths
    fits = _fits_torch(layer)
    layer.__class__ = own if fits else _pruned(own)
    return True


def inner_widths(layer: nn.MultiheadAttention) -> list[int]:
    """Return the rows of the projections of queries, keys and values.

    >>> inner_widths(nn.MultiheadAttention(8, 2, kdim=3))
    [8, 8, 8]
    """
    if layer.in_proj_weight is None:
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        return [weight.shape[0] for weight in weights]
    values = layer.out_proj.weight.shape[1]
    queries = (layer.in_proj_weight.shape[0] - values) // 2
    return [queries, queries, values]


def _fits_torch(layer: nn.MultiheadAttention) -> bool:
    """Return whether ``nn.MultiheadAttention`` computes the same with these tensors."""
    inner = {*inner_widths(layer), layer.num_heads * layer.head_dim}
    return inner == {layer.embed_dim} == {layer.out_proj.weight.shape[0]}


# --- classes and inputs -----------------------------------------------------------------------

_Kind = type[nn.MultiheadAttention]
_classes: dict[_Kind, _Kind] = {nn.MultiheadAttention: PrunedMultiheadAttention}


def _pruned(own: _Kind) -> _Kind:
    """Return the class of a layer that was cut; of subclasses one that inherits from both."""
    if own not in _classes:
        named = {n: getattr(own, n) for n in ("__module__", "__qualname__", "__doc__")}
        _classes[own] = type(own.__name__, (PrunedMultiheadAttention, own), named)
    return _classes[own]


def _empty(own: _Kind) -> nn.Module:
    """Return an object that pickle and copy fill; its class is made, and cannot be looked up."""
    kind = _pruned(own)
    layer: nn.Module = kind.__new__(kind)
    return layer


def _check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    fits = query.ndim in (2, 3) and query.ndim == key.ndim == value.ndim
    if not fits or key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            f"query, key and value are {tuple(query.shape)}, {tuple(key.shape)} and "
            f"{tuple(value.shape)}: pass three of 3 dimensions, or of 2 for a single sample, and "
            "as many keys as values"
        )


def _each(
    change: Callable[[Tensor], Any], query: Tensor, key: Tensor, value: Tensor
) -> tuple[Any, Any, Any]:
    """Change three tensors; those that are one object stay one."""
    q = change(query)
    k = q if key is query else change(key)
    return q, k, k if value is key else change(value)


def _batch_of_one(x: Tensor) -> Tensor:
    return x.unsqueeze(0)


def _with_last(x: Tensor, last: Tensor, batch_first: bool) -> Tensor:
    """Append the same row (1, 1, C) to the keys or values of each sample."""
    sequence = int(batch_first)
    shape = list(x.shape)
    shape[sequence] = 1
    return torch.cat([x, last.expand(shape)], dim=sequence)
