"""How long a network takes, estimated from the widths of its groups."""

from collections.abc import Callable, Sequence

import numpy as np

from lightning_prune.graph.layer_widths import End, LayerWidths
from lightning_prune.graph.macs import MacModel, Values


def estimated_time(
    macs: MacModel, names: Sequence[str], vector: int, memory_cost: float
) -> Callable[[Values], Values]:
    r"""Return the time as a function of many choices of widths at once, (N, G) -> (N,), in MACs.

    .. math:: t(w) = \sum_l M_l \frac{\lceil o_l \rceil_v}{O_l} \frac{\lceil i_l \rceil_v}{I_l}
        + m \left( a_l \frac{o_l}{O_l} + b_l \frac{i_l}{I_l} \right)

    with the layer's dense MACs M, its dense widths O and I and its remaining widths o and i at
    the output and the input, rounded up to whole vectors, and the numbers a and b of values that
    the dense layer makes and reads. Where no group stands at one end (the image, the result), its
    fraction is 1.

    Args:
        macs: MACs and values of the network.
        names: The G groups whose widths vary, in this order; others keep all channels.
        vector: v, channels that the hardware computes at once.
        memory_cost: m, the time in which a value is written or read, in MACs.

    Source: two terms, of arithmetic and of traffic: S. Williams, A. Waterman, D. Patterson, 2009,
    Roofline, DOI 10.1145/1498765.1498785; the rounding: measured, docs/log.md.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 24), torch.nn.Linear(24, 10))
    >>> macs = MacModel.of(net, trace_groups(net, torch.zeros(1, 2)), torch.zeros(1, 2))
    >>> estimated_time(macs, ["0"], vector=16, memory_cost=0)(np.array([[24.0], [17.0], [16.0]]))
    array([384., 384., 192.])
    """
    layers = LayerWidths(macs, names)
    count = np.array([float(macs.layers[layer]) for layer in layers.layers])
    values = [macs.values.get(layer, (0, 0)) for layer in layers.layers]
    made, read = np.array(values).reshape(-1, 2).T

    def shares(widths: Values, end: End) -> tuple[Values, Values]:
        """Return the remaining fraction of each layer's width, and that in whole vectors."""
        left, dense = layers.of(widths, end), layers.dense[end]
        rounded = np.ceil(left / vector - 1e-9) * vector
        return left / dense, np.where(dense > 1, rounded, left) / dense

    def time(widths: Values) -> Values:
        out, whole_out = shares(widths, "out")
        into, whole_in = shares(widths, "in")
        found: Values = (
            count * whole_out * whole_in + memory_cost * (made * out + read * into)
        ).sum(1)
        return found

    return time
