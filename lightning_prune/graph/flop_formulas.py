"""Fused operations that ``torch.utils.flop_counter`` leaves out on some device.

Attention counts on CUDA and not on CPU, recurrent layers count where they are not fused. The
formulas are registered with torch's counter, so that its numbers and the project's are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

Shape = Sequence[int]


def attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of softmax(q k^T) v, (B, H, N, D) each; grouped keys are read repeatedly.

    >>> attention_flops((1, 2, 5, 4), (1, 2, 7, 4), (1, 2, 7, 3))  # 2 * 2 * 5 * 7 * (4 + 3)
    980
    """
    *heads, tokens, width = query
    count = 2 * tokens * key[-2] * (width + value[-1])
    for size in heads:
        count *= size
    return count


def _mkldnn_lstm_flops(steps: Shape, first: Shape, second: Shape, *_: Any, **__: Any) -> int:
    """Count one layer in one direction: both matrices once for each step of each sample."""
    samples = _samples(steps)
    return 2 * samples * (first[0] * first[1] + second[0] * second[1])


def _cudnn_rnn_flops(steps: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """Count all layers at once: each matrix once for each step of each sample."""
    return 2 * _samples(steps) * sum(w[0] * w[1] for w in weights if len(w) == 2)


def _samples(steps: Shape) -> int:
    count = 1
    for size in steps[:-1]:
        count *= size
    return count


_FORMULAS: dict[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": attention_flops,
    "_scaled_dot_product_fused_attention_overrideable": attention_flops,
    "_scaled_dot_product_attention_math_for_mps": attention_flops,
    "mkldnn_rnn_layer": _mkldnn_lstm_flops,
    "_cudnn_rnn": _cudnn_rnn_flops,
}


def register_missing_formulas() -> None:
    """Register with torch's FLOP counter what it does not know; what it knows stays."""
    for name, formula in _FORMULAS.items():
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None and packet not in flop_registry:
            register_flop_formula(packet)(formula)
