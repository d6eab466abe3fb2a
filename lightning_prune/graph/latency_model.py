"""Milliseconds of a network as a function of its groups' widths."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_prune.functional.widths.kernel_times import KernelTimes
from lightning_prune.graph.layer_widths import LayerWidths
from lightning_prune.graph.macs import MacModel, Values


@dataclass(frozen=True)
class LatencyModel:
    r"""Milliseconds of a network as a function of its groups' widths.

    .. math:: T(w) = c + s \sum_l t_l(o_l, i_l) + v \sum_l \left( a_l \frac{o_l}{O_l}
        + b_l \frac{i_l}{I_l} \right) + m \, M'(w)

    with the measured times t of the layers' kernels at their widths o and i, the numbers a and b
    of values that the dense layers make and read (activations, concatenations and what else only
    moves values), and the MACs M' of layers whose kernels were not measured. It has the
    interface of ``MacModel``, so that whatever meets a budget of MACs meets one of milliseconds.

    Attributes:
        macs: MACs and values of the network.
        kernels: Layer name -> its kernel's times.
        constant: Milliseconds that no width changes, c.
        scale: What a kernel takes inside of a network, in its time alone, s.
        per_value: Milliseconds for a value that is made or read, v.
        per_mac: Milliseconds for a MAC of layers without times, m.
    """

    macs: MacModel
    kernels: Mapping[str, KernelTimes]
    constant: float = 0.0
    scale: float = 1.0
    per_value: float = 0.0
    per_mac: float = 0.0

    @property
    def total(self) -> float:
        """Return the milliseconds of the dense network."""
        return self.remaining({})

    def remaining(self, widths: Mapping[str, int]) -> float:
        """Return the milliseconds when groups keep these many channels (others all)."""
        names = list(widths)
        return float(self.costs_of(names)(np.array([[float(widths[n]) for n in names]]))[0])

    def cost_of(self, names: Sequence[str]) -> Callable[[Sequence[int]], float]:
        """Return ``remaining`` as a fast function of the widths of some groups, in this order."""
        costs = self.costs_of(names)
        return lambda widths: float(costs(np.asarray(widths, dtype=np.float64)[None])[0])

    def costs_of(self, names: Sequence[str]) -> Callable[[Values], Values]:
        """Return the milliseconds as a function of many choices of widths, (N, G) -> (N,)."""
        parts = self.parts_of(names)
        factors = np.array([1.0, self.scale, self.per_value, self.per_mac])
        factors[0] = self.constant

        def costs(widths: Values) -> Values:
            found: Values = parts(widths) @ factors
            return found

        return costs

    def parts_of(self, names: Sequence[str]) -> Callable[[Values], Values]:
        """Return what the factors multiply, (N, G) -> (N, 4): 1, kernels, values, other MACs."""
        layers = LayerWidths(self.macs, names)
        values = [self.macs.values.get(layer, (0, 0)) for layer in layers.layers]
        made, read = np.array(values, dtype=np.float64).reshape(-1, 2).T
        alone = np.array([float(self.macs.layers[layer]) for layer in layers.layers])
        alone[[layer in self.kernels for layer in layers.layers]] = 0.0

        def parts(widths: Values) -> Values:
            out, into = layers.of(widths, "out"), layers.of(widths, "in")
            kernels = np.zeros(len(widths))
            for number, layer in enumerate(layers.layers):
                times = self.kernels.get(layer)
                if times is not None:
                    kernels += times.at(
                        _width(out[:, number], layers.dense["out"][number], times.outputs),
                        _width(into[:, number], layers.dense["in"][number], times.inputs),
                    )
            left, still = out / layers.dense["out"], into / layers.dense["in"]
            moved = (made * left + read * still).sum(1)
            others = (alone * left * still).sum(1)
            return np.stack([np.ones(len(widths)), kernels, moved, others], axis=1)

        return parts


def _width(widths: Values, dense: float, grid: tuple[int, ...]) -> Values:
    """Return widths as a kernel counts them: all of them where no group stands at that end."""
    found: Values = widths / dense * grid[-1]
    return found
