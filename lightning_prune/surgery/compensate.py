"""Refits the consumers of removed channels, so that they reconstruct the removed inputs."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import applies_weight
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.input_products import portions, shifted_layers
from lightning_prune.surgery.layer_matrix import LayerMatrix

_KEPT, _REMOVED, _ALREADY_MASKED = 0, 1, 2


@torch.no_grad()
def compensate(
    model: nn.Module,
    groups: ChannelGroups,
    plan: PruningPlan,
    batches: Callable[[], Iterable[Any]],
    forward: Callable[[nn.Module, Any], Any],
    *,
    held: PruningPlan | None = None,
    ridge: float = 0.01,
    positions: int = 64,
    seed: int = 0,
    total: Callable[[Tensor], Tensor] | None = None,
) -> tuple[str, ...]:
    r"""Refit the consumers of channels to be removed, so that their outputs change least.

    What the removed channels R add to a consumer's output is reconstructed, by least squares over
    some inputs, from the kept channels K; the solution is added to its weights:

    .. math:: W_K \leftarrow W_K + W_R\, G_{RK} (G_{KK} + \lambda I)^{-1}, \qquad
        G = \sum_x x x^T, \quad \lambda = ridge \cdot \overline{diag\, G_{KK}}

    with x a consumer's input patch (input channels times kernel, and a constant where it
    has a bias or a batch norm follows, whose statistics must then be estimated again). Columns
    of R are left as they are: masking zeroes them. To be called before the mask is applied.

    Args:
        model: The live model, in which the channels that ``plan`` removes still work.
        groups: Its channel groups.
        plan: What will be kept.
        batches: Called for a fresh pass over the same batches, on the model's device.
        forward: ``(model, batch) -> anything``, the forward pass.
        held: What an earlier mask already holds at zero.
        ridge: Regularisation as a fraction of the mean squared input, positive.
        positions: Output positions read per image and layer.
        seed: Of the choice of these positions.
        total: Sums a tensor over all processes; None: there is one.

    Returns:
        The names of the consumers that were refitted. Convolutions that are transposed or of
        several groups, and those with a computed weight, are left as they are.

    Warns:
        UserWarning: a consumer has so many inputs (more than 16383 with its kernel) that their
            products would not fit into 1 GiB: it is left as it is.

    Raises:
        ValueError: ``ridge`` or ``positions`` is not positive.

    Source: He, Zhang, Sun, 2017, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV,
    arXiv 1707.06168; Luo, Wu, Lin, 2017, ThiNet, ICCV, arXiv 1707.06342.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[1].weight.data = torch.tensor([[1.0], [2.0]]), torch.ones(1, 2)
    >>> plan = PruningPlan({"0": torch.tensor([0])}, {"0": 2})
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> groups = trace_groups(net, x)
    >>> compensate(net, groups, plan, lambda: [x], lambda net, x: net(x), ridge=1e-6)
    ('1',)
    >>> [round(value, 3) for value in net[1].weight[0].tolist()]  # 1 + 2 x 1: it stands for both
    [3.0, 1.0]
    """
    if ridge <= 0:
        raise ValueError(f"ridge={ridge}: pass a positive fraction, for example 0.01")
    if positions < 1:
        raise ValueError(f"positions={positions}: pass at least 1 output position per image")
    modules = modules_by_name(model)
    status = _input_status(modules, groups, plan, held or PruningPlan())
    refitted: list[str] = []
    inputs = {name: modules[name].get_parameter("weight")[0].numel() for name in status}
    constant = shifted_layers(modules, groups)
    for layers in portions(inputs, "these layers are masked without being refitted"):
        patches = _InputProducts(modules, layers, constant, positions, seed)
        with untouched(model), patches:
            model.eval()
            for batch in batches():
                forward(model, batch)
        for name, products in patches.products.items():
            everywhere = products if total is None else total(products)
            if _refit(modules[name], status[name], everywhere, ridge):
                refitted.append(name)
    return tuple(refitted)


def _input_status(
    modules: Mapping[str, nn.Module], groups: ChannelGroups, plan: PruningPlan, held: PruningPlan
) -> dict[str, Tensor]:
    """Return for each consumer that loses inputs the status of each of its inputs."""
    found: dict[str, Tensor] = {}
    for name in plan.keep:
        group, keep = groups[name], plan.mask(name)
        unmasked = held.mask(name) if name in held.keep else torch.ones_like(keep)
        status = torch.where(keep, _KEPT, torch.where(unmasked, _REMOVED, _ALREADY_MASKED))
        for member in group.members:
            layer = modules[member.layer]
            if member.role != "consumer" or not applies_weight(layer):
                continue
            if ("weight", 1) not in member.dims:
                continue
            weight = layer.get_parameter("weight")
            own = found.setdefault(member.layer, torch.zeros(weight.shape[1], dtype=torch.int64))
            # Where groups are factors of the same inputs, each can take one away.
            own[member.index] = torch.maximum(own[member.index], status[member.channel])
    return {
        name: found[name]
        for name in groups.order
        if name in found and (found[name] == _REMOVED).any() and (found[name] == _KEPT).any()
    }


class _InputProducts:
    """Sums the inner products of the input patches of some layers while a model runs."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        layers: list[str],
        constant: set[str],
        positions: int,
        seed: int,
    ) -> None:
        self.products: dict[str, Tensor] = {}
        self._modules = modules
        self._layers = layers
        self._constant = constant
        self._positions = positions
        self._random = torch.Generator().manual_seed(seed)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "_InputProducts":
        self._handles = [
            self._modules[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name in self._layers
        ]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def read(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            x: Tensor = inputs[0] if inputs else named["input"]
            with torch.autocast(x.device.type, enabled=False):
                # Half precision is too coarse for sums of products; double stays what it is.
                kind = torch.promote_types(x.dtype, torch.float32)
                rows = self._patches(layer, x.detach().to(kind))
                if name in self._constant:
                    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
                product = rows.T @ rows
            seen = self.products.get(name)
            self.products[name] = product if seen is None else seen.add_(product)

        return read

    def _patches(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return input patches (rows, input channels x kernel), in the order of the weight."""
        if not isinstance(layer, _ConvNd):
            rows = x.reshape(-1, x.shape[-1])
            limit = self._positions * len(x)
            chosen = self._draw(len(rows), limit)
            return rows if chosen is None else rows[chosen.to(x.device)]
        matrix = LayerMatrix(layer)
        total = math.prod(matrix.places(x))
        chosen = self._draw(total, self._positions)
        place = torch.arange(total) if chosen is None else chosen
        return matrix.rows(x, place.expand(matrix.images(x), -1))[0]

    def _draw(self, total: int, limit: int) -> Tensor | None:
        if total <= limit:
            return None
        return torch.randint(total, (limit,), generator=self._random)


def _refit(layer: nn.Module, status: Tensor, products: Tensor, ridge: float) -> bool:
    """Add to a layer's weights what reconstructs its removed inputs from the kept ones.

    Returns False, and changes nothing, where the kept inputs are all zero, NaN or infinite.
    """
    weight = layer.get_parameter("weight")
    taps = weight[0, 0].numel()
    status = status.to(weight.device).repeat_interleave(taps)
    constant = len(products) > len(status)
    kept = torch.nonzero(status == _KEPT).flatten()
    removed = torch.nonzero(status == _REMOVED).flatten()
    predictors = torch.cat([kept, kept.new_tensor([len(status)])]) if constant else kept
    known = products[predictors][:, predictors].double()
    mean = known.diagonal()[: len(kept)].mean()
    if not bool(products.isfinite().all()) or mean <= 0:
        return False
    damping = torch.full_like(known.diagonal(), float(ridge * mean))
    if constant:
        damping[-1] = 1e-9 * damping[-1]  # a shift costs nothing
    solved = torch.linalg.solve(known + damping.diag(), products[predictors][:, removed].double())
    flat = weight.detach().flatten(1)
    added = flat[:, removed].double() @ solved.T
    flat = flat.clone()
    flat[:, kept] += added[:, : len(kept)].to(flat.dtype)
    weight.copy_(flat.view_as(weight))
    bias = getattr(layer, "bias", None)
    if constant and bias is not None:
        bias += added[:, -1].to(bias.dtype)
    return True
