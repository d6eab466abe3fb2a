"""Fits every layer of a masked network to what the dense one gives, front to back."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.functional.reconstruction.refit import refit_weight
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import modules_by_name
from lightning_prune.observe.walk import Stop, walk
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.input_products import LARGEST, precise, read_rows, shifted_layers
from lightning_prune.surgery.layer_matrix import LayerMatrix, is_matrix
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.places import Places

_TINY = 1e-30
_ROUNDING = 1e-6


@dataclass
class WalkedRefit:
    """What a walk changed.

    Attributes:
        errors: Layer -> its squared error against the dense network after the refit, as a fraction
            of the variance of the dense output; in the order of the walk.
        before: The same before the refit, the layers in front of it refitted.
        norms: Names of the norms of which some statistics were estimated again.
        left: Layers that were not refitted -> why.
        outputs: What the refitted network gives for each batch.
    """

    errors: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    norms: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)


def walked_refit(
    model: nn.Module,
    dense: nn.Module,
    groups: ChannelGroups,
    plan: PruningPlan,
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    *,
    places: Places | None = None,
    ridge: float = 0.01,
    norms: bool = True,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    total: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[str], None] | None = None,
) -> WalkedRefit:
    r"""Mask a plan, and refit layer by layer so that each gives what the dense network gives.

    In the order of the forward pass every convolution and linear layer whose inputs are no longer
    those of the dense network is refitted, asymmetrically:

    .. math:: \min_W \sum_p \lVert y_p - W x'_p - b \rVert^2
        + \lambda \lVert W - W_{dense} \rVert^2

    with x' its inputs in the network as it is by then, y its outputs in the dense one, p places of
    the output; errors made in front of a layer are repaired by it as far as it can. Means and
    variances of batch norms change as those of what reaches them have changed. Both networks walk
    side by side, so that the price is two forward passes a batch.

    Args:
        model: The live model; it is masked and changed.
        dense: A copy of it from before, on the same device.
        groups: Its channel groups.
        plan: What is kept.
        batches: On the device of the model; all of them are in memory at once, with their
            activations around a layer.
        forward: ``(model, batch) -> anything``.
        places: Which places are read; None: 64 of each image.
        ridge: Regularization as a fraction of the mean squared input, positive.
        norms: Whether statistics of batch norms are estimated again.
        context: Makes a context for each pass, such as autocast.
        total: Sums a tensor over all processes; None: there is one.
        progress: Called with the name of each layer.

    Returns:
        Errors, and what was left alone.

    Raises:
        PathsDifferError: batches come to different layers.

    Source: He, Zhang, Sun, 2017, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV,
    arXiv 1707.06168.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> from lightning_prune.surgery.copy_module import copy_module
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[1].weight.data = torch.tensor([[1.0], [2.0]]), torch.ones(1, 2)
    >>> plan = PruningPlan({"0": torch.tensor([0])}, {"0": 2})
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> groups, dense = trace_groups(net, x), copy_module(net)
    >>> found = walked_refit(net, dense, groups, plan, [x], lambda net, x: net(x), ridge=1e-6)
    >>> [round(value, 3) for value in net[1].weight[0].tolist()]  # 1 + 2 x 1: it stands for both
    [3.0, 0.0]
    """
    walker = _Walker(model, dense, groups, plan, places or Places(), ridge, norms, total, progress)
    visits: dict[str, Callable[[Stop], None]] = {}
    for name, module in walker.modules.items():
        if is_matrix(module):
            visits[name] = walker.refit
        elif norms and isinstance(module, _BatchNorm) and module.running_mean is not None:
            visits[name] = walker.estimate
    walker.mask.apply()
    walker.found.outputs = walk(model, batches, forward, visits, twin=dense, context=context)
    return walker.found


class _Walker:
    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        groups: ChannelGroups,
        plan: PruningPlan,
        places: Places,
        ridge: float,
        norms: bool,
        total: Callable[[Tensor], Tensor] | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.modules, self.twins = modules_by_name(model), modules_by_name(dense)
        self.mask = ChannelMask(model, groups, plan)
        self.found = WalkedRefit()
        self._places, self._ridge, self._total, self._progress = places, ridge, total, progress
        self._free = shifted_layers(self.modules, groups, norms)

    def refit(self, stop: Stop) -> None:
        """Fit a layer whose inputs are others than those of the dense network."""
        if self._progress is not None:
            self._progress(stop.name)
        same = all(map(torch.equal, stop.inputs, stop.twin_inputs))
        if self._summed(stop.inputs[0].new_tensor(float(not same), dtype=torch.float32)) == 0:
            return
        matrix, dense = LayerMatrix(stop.layer), LayerMatrix(self.twins[stop.name])
        weight, shift = matrix.weight.clone(), stop.name in self._free
        if len(weight) * (weight.shape[2] + 1) ** 2 > LARGEST:
            self.found.left[stop.name] = f"{weight.shape[2]} inputs are too many to fit"
            return
        sums = self._sums(stop, matrix, dense, shift)
        if sums is None:
            return
        solved = refit_weight(sums.products, sums.mixed, weight, self._ridge, shift=shift)
        if solved is None:
            self.found.left[stop.name] = "its inputs are not finite"
            return
        bias = stop.layer._parameters.get("bias")
        matrix.set_weight(solved[0].to(weight.dtype))
        if shift and bias is not None:
            bias.copy_(solved[1].flatten().to(bias.dtype))
        self.mask.apply()
        alive = matrix.weight.flatten(2).any(2)
        before, after = sums.errors([weight, matrix.weight], alive)
        self.found.before[stop.name], self.found.errors[stop.name] = before, after

    def _sums(
        self, stop: Stop, matrix: LayerMatrix, dense: LayerMatrix, shift: bool
    ) -> "_Sums | None":
        found: _Sums | None = None
        bias = dense.layer._parameters.get("bias")
        for number, (x, reference) in enumerate(zip(stop.inputs, stop.twin_inputs, strict=True)):
            with torch.autocast(x.device.type, enabled=False):
                rows = read_rows(stop.name, matrix, precise(x), self._places, number)
                wanted = read_rows(stop.name, dense, precise(reference), self._places, number)
                y = wanted @ dense.weight.to(wanted.dtype).transpose(1, 2)
                if bias is not None:
                    y += bias.unflatten(0, (len(y), -1))[:, None].to(y.dtype)
                if shift:
                    rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], dim=2)
                found = _Sums.of(rows, y) if found is None else found.add(rows, y)
        if found is not None and self._total is not None:
            found = _Sums(*map(self._total, vars(found).values()))
        return found

    def estimate(self, stop: Stop) -> None:
        """Change the statistics of a norm as those of what reaches it have changed.

        With m, s the means and deviations of its inputs in the network as it is, and m', s' in the
        dense one, and the norm's own mean and deviation M', S' from training:
        S = S' s / s' and M = m + (M' - m') s / s'. Where training saw what these images show
        (M' = m', S' = s') that is m and s; where it saw other images (another size, too few), it
        stays what training knew.
        """
        norm = stop.layer
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        sides = []
        pivot = norm.running_mean.double()
        for inputs in (stop.inputs, stop.twin_inputs):
            sums = pivot.new_zeros(3, len(pivot))
            for x in inputs:
                values = x.detach().transpose(0, 1).reshape(len(pivot), -1)
                values = values.to(torch.promote_types(x.dtype, torch.float32))
                values = values - pivot[:, None].to(values.dtype)
                sums[0] += values.sum(1, dtype=torch.float64)
                sums[1] += values.square().sum(1, dtype=torch.float64)
                sums[2] += values.shape[1]
            sides.append(self._summed(sums))
        own, dense = (_moments(sums) for sums in sides)
        changed = (sides[0] != sides[1]).any(0)
        if not bool(torch.stack(sides).isfinite().all() and changed.any()):
            return
        ratio = torch.where(dense[1] > 0, own[1] / dense[1].clamp(min=_TINY), 1.0)
        mean = own[0] + pivot - dense[0] * ratio.sqrt()
        norm.running_mean.copy_(torch.where(changed, mean, pivot))
        old = norm.running_var.double()
        norm.running_var.copy_(torch.where(changed, old * ratio, old))
        self.found.norms.append(stop.name)

    def _summed(self, value: Tensor) -> Tensor:
        return value if self._total is None else self._total(value)


@dataclass
class _Sums:
    """Sums over the places of a layer: x x^T, x y^T, y y^T by output, y, how many."""

    products: Tensor
    mixed: Tensor
    squares: Tensor
    outputs: Tensor
    count: Tensor

    @classmethod
    def of(cls, rows: Tensor, y: Tensor) -> "_Sums":
        count = rows.new_tensor(float(rows.shape[1]))
        turned = rows.transpose(1, 2)
        return cls(turned @ rows, turned @ y, y.square().sum(1), y.sum(1), count)

    def add(self, rows: Tensor, y: Tensor) -> "_Sums":
        turned = rows.transpose(1, 2)
        self.products.baddbmm_(turned, rows)
        self.mixed.baddbmm_(turned, y)
        self.squares += y.square().sum(1)
        self.outputs += y.sum(1)
        self.count += rows.shape[1]
        return self

    def errors(self, weights: Sequence[Tensor], alive: Tensor) -> list[float]:
        """Return the squared errors of weights as fractions of the variance of what is wanted.

        Of the outputs that are there, around their means where a constant is fitted.

        Args:
            weights: (groups, outputs, inputs) each.
            alive: (groups, outputs), True = counts.
        """
        inputs = weights[0].shape[2]
        free = self.products.shape[1] > inputs
        variance = self.squares - self.outputs.square() / self.count
        products, mixed = self.products[:, :inputs, :inputs], self.mixed[:, :inputs]
        if free:
            means = self.products[:, :inputs, inputs]
            products = products - means[:, :, None] * means[:, None] / self.count
            mixed = mixed - means[:, :, None] * self.outputs[:, None] / self.count
        # Of outputs that hardly vary, no more than rounding is left of the variance.
        whole = variance[alive].sum().clamp(min=_TINY + _ROUNDING * self.squares[alive].sum())
        found = []
        for weight in weights:
            crossed = (weight * mixed.transpose(1, 2)).sum(2)
            inner = (weight @ products * weight).sum(2)
            missed = (variance if free else self.squares) - 2 * crossed + inner
            found.append(float(missed[alive].sum().clamp(min=0) / whole))
        return found


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and variances of sums, sums of squares and counts, (3, C)."""
    count = sums[2].clamp(min=1)
    mean = sums[0] / count
    return mean, (sums[1] / count - mean.square()).clamp(min=0)
