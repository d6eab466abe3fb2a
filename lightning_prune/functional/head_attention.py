"""Attention of several heads whose widths are free: what is asked for, and what is added up."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Compute scaled dot-product attention with a scale that does not follow from the width.

    .. math:: Y = \mathrm{softmax}(s \, Q K^T + M) \, V

    Queries and keys that lost channels have the products of those that were zero there, if the
    scale s is the one that the wide heads had.

    Args:
        query: Q, shaped (N, H, L, D).
        key: K, shaped (N, H, S, D).
        value: V, shaped (N, H, S, W).
        scale: What the products are multiplied by, s.
        mask: M, floating point, broadcast to (N, H, L, S); None: zero.
        is_causal: Position l of the queries sees keys up to l; without weights and mask only.
        dropout: Probability that a weight is zero.
        need_weights: Return the softmax too; it costs the memory of all weights.

    Returns:
        Y (N, H, L, W), and the weights (N, H, L, S) or None.

    Source: A. Vaswani et al., 2017, Attention Is All You Need, arXiv 1706.03762.

    >>> query, key = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 5.0], [-1.0, 5.0]]]])
    >>> value = torch.tensor([[[[1.0], [0.0]]]])
    >>> y, weights = attend_heads(query, key, value, scale=0.5, need_weights=True)
    >>> round(float(y), 4), [round(weight, 4) for weight in weights.flatten().tolist()]
    (0.7311, [0.7311, 0.2689])
    """
    if not need_weights:
        y = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal, scale=scale)
        return y, None
    scores = (query * scale) @ key.transpose(-2, -1)
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    return weights @ value, weights


def added_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask that is added to scores: True of a bool mask is minus infinity.

    Args:
        mask: Bool, True = not seen, or floating point.
        dtype: Of the result, where the mask is bool.

    Raises:
        TypeError: the mask is of another kind.

    >>> added_mask(torch.tensor([False, True]), torch.float32).tolist()
    [0.0, -inf]
    """
    if mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise TypeError(f"a mask is {mask.dtype}: pass bool (True = not seen) or floating point")
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def mask_of_heads(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    scores: tuple[int, int, int, int],
    dtype: torch.dtype,
    extra_keys: int = 0,
) -> Tensor | None:
    """Return one mask to add to the scores of all heads, out of the two that layers take.

    Args:
        attn_mask: (L, S), or (N H, L, S) with a mask for each head; bool or floating point.
        key_padding_mask: (N, S); bool or floating point.
        scores: N, H, L and S, without the extra keys.
        dtype: Of the result, where masks are bool.
        extra_keys: Keys after the S that all positions see.

    Returns:
        Broadcast to (N, H, L, S + extra_keys), or None without masks.

    Raises:
        ValueError: a mask has another shape.
        TypeError: a mask is neither bool nor floating point.

    >>> padding = torch.tensor([[False, True], [False, False]])
    >>> mask_of_heads(None, padding, (2, 4, 3, 2), torch.float32).shape
    torch.Size([2, 1, 1, 2])
    """
    batch, heads, queries, keys = scores
    found: Tensor | None = None
    if attn_mask is not None:
        shape = (queries, keys) if attn_mask.ndim == 2 else (batch * heads, queries, keys)
        if attn_mask.shape != shape:
            raise ValueError(
                f"attn_mask is {tuple(attn_mask.shape)}: pass ({queries}, {keys}), or a mask for "
                f"each of the {heads} heads that the layer has, ({batch * heads}, {queries}, "
                f"{keys}); of heads that were cut leave it out"
            )
        own = attn_mask if attn_mask.ndim == 2 else attn_mask.unflatten(0, (batch, heads))
        found = added_mask(own, dtype)
    if key_padding_mask is not None:
        if key_padding_mask.shape != (batch, keys):
            raise ValueError(
                f"key_padding_mask is {tuple(key_padding_mask.shape)}: pass ({batch}, {keys})"
            )
        padding = added_mask(key_padding_mask, dtype)[:, None, None]
        found = padding if found is None else found + padding
    return found if found is None or not extra_keys else F.pad(found, (0, extra_keys))
