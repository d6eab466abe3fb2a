"""What a dense and a pruned model predict of the cells that fire most, beside what was recorded."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.neural.functional.own_rates import own_rates
from lightning_prune.neural.module import NeuralResponseModule

_DIGITS = 4


def sample_rates(
    dense: NeuralResponseModule | None,
    pruned: NeuralResponseModule,
    batches: Iterable[Any],
    count: int = 6,
    windows: int = 160,
) -> list[dict[str, Any]]:
    """Return recorded spikes and predicted rates of the cells with most spikes, front to back.

    Args:
        dense: The dense model; None: there is none.
        pruned: The pruned one.
        batches: ``(inputs, targets)``, as the modules are tested with.
        count: Of cells.
        windows: Of each session, at most so many.

    Returns:
        Of each cell ``name``, and ``recorded``, ``dense`` (or None) and ``pruned``: a number for
        each window.
    """
    kept = _first(batches, windows)
    models = {"dense": dense, "pruned": pruned}
    rates = {side: None if one is None else _rates(one, kept) for side, one in models.items()}
    session = torch.cat([inputs["session"] for inputs, _ in kept])
    spikes = torch.cat([targets["spikes"] for _, targets in kept]).float()
    valid = torch.cat([targets["valid"] for _, targets in kept])
    cells = []
    for number in session.unique().tolist():
        rows = (session == number).nonzero().flatten()[:windows]
        for cell in valid[rows].all(0).nonzero().flatten().tolist():
            cells.append((float(spikes[rows, cell].sum()), number, cell, rows))
    cells.sort(key=lambda one: -one[0])
    return [
        {
            "name": f"session {number}, cell {cell}",
            "recorded": _numbers(spikes[rows, cell]),
            **{
                side: None if rate is None else _numbers(rate[rows, cell])
                for side, rate in rates.items()
            },
        }
        for _, number, cell, rows in cells[:count]
    ]


def _first(batches: Iterable[Any], windows: int) -> list[tuple[Mapping[str, Tensor], Any]]:
    """Return the first batches, until one session has enough windows."""
    kept: list[tuple[Mapping[str, Tensor], Any]] = []
    for inputs, targets in batches:
        kept.append((inputs, targets))
        if max(torch.cat([one["session"] for one, _ in kept]).bincount().tolist()) >= windows:
            break
    return kept


def _rates(module: NeuralResponseModule, batches: list[tuple[Mapping[str, Tensor], Any]]) -> Tensor:
    weight = next(p for p in module.parameters() if p.is_floating_point())
    found = []
    with untouched(module), torch.inference_mode():
        module.eval()
        for inputs, _ in batches:
            given = {name: value.to(weight.device) for name, value in inputs.items()}
            rates = module.network(given["stimulus"], given["behavior"])
            found.append(own_rates(rates, given["session"]).exp().float().cpu())
    return torch.cat(found)


def _numbers(values: Tensor) -> list[float]:
    return [round(value, _DIGITS) for value in values.tolist()]
