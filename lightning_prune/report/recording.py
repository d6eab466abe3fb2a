"""What goes into a report while a run prunes."""

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

import lightning_prune
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import count_macs
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.latency import measure_latency
from lightning_prune.report.layers import layer_rows
from lightning_prune.report.report_data import (
    CutFacts,
    ModelFacts,
    ReportData,
    SeparabilityFacts,
)
from lightning_prune.surgery.cut import PrunedChannels

_PACKAGES = ("torch", "lightning", "torch-pruning", "scikit-learn")


def record_run(data: ReportData, model: nn.Module, device: torch.device) -> None:
    """Record seed and model of the run, the versions of the packages, and where it trains."""
    data.module = type(model).__name__
    data.seed = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))
    own = {"lightning-prune": lightning_prune.__version__}
    data.versions = own | {name: version(name) for name in _PACKAGES}
    data.device = str(device)


def record_metrics(facts: ModelFacts, metrics: Mapping[str, float]) -> None:
    """Record the finite ones among metrics: a JSON file knows no others."""
    numbers = {name: float(value) for name, value in metrics.items()}
    facts.metrics |= {name: value for name, value in numbers.items() if math.isfinite(value)}


def record_size(facts: ModelFacts, model: nn.Module, example: Any) -> None:
    """Record parameters, MACs and bytes of a model."""
    facts.parameters = sum(p.numel() for p in model.parameters())
    held = (*model.parameters(), *model.buffers())
    facts.bytes = sum(tensor.numel() * tensor.element_size() for tensor in held)
    facts.macs = count_macs(model, example)


def decisions_of(plan: PruningPlan) -> list[GroupDecision]:
    """Return what a plan says of each group, where nobody says why."""
    return [
        GroupDecision(name, keep, plan.channels[name], None, "plan", "pruned", "")
        for name, keep in plan.keep.items()
    ]


def record_decisions(
    data: ReportData, decisions: Sequence[GroupDecision], groups: ChannelGroups, model: nn.Module
) -> None:
    """Record a row for every layer of the decided groups, in place of an earlier one.

    Args:
        data: The report.
        decisions: What was decided, one per group.
        groups: The groups of the model as it is.
        model: The masked model, not yet cut.
    """
    new = layer_rows(decisions, groups, model)
    names = {row.name for row in new}
    data.layers = [*(row for row in data.layers if row.name not in names), *new]
    data.separability = SeparabilityFacts.of(data.layers)


def record_cut(
    data: ReportData, pruned: PrunedChannels, model: nn.Module, epoch: int, step: int
) -> None:
    """Record when channels were cut, and the widths that all plans together left.

    Args:
        data: The report.
        pruned: What was cut.
        model: The masked model.
        epoch: Epoch at whose start it was cut.
        step: Optimizer steps before.
    """
    data.cut = CutFacts(epoch, step, pruned.output_difference, list(pruned.mixed_by))
    known = {row.group for row in data.layers}
    rest = [one for one in decisions_of(pruned.plan) if one.group not in known]
    record_decisions(data, rest, pruned.groups, model)
    for row in data.layers:
        # Two maskers may have chosen among the channels of one group.
        bundle = pruned.groups[row.group].bundle if row.group in pruned.groups else 1
        kept = len(pruned.plan.keep.get(row.group, ())) * bundle
        row.channels_after = kept or row.channels_before
        row.pruning_ratio = 1 - row.channels_after / row.channels_before


def record_latency(
    data: ReportData,
    models: Mapping[str, nn.Module],
    example: Any,
    rounds: int,
    known: tuple[Mapping[str, float], str] | None = None,
) -> None:
    """Record the latency of the models ``dense`` and ``pruned``, measured in turn.

    Args:
        data: The report.
        models: Both of them.
        example: What they are called with.
        rounds: Forward passes of each.
        known: What another runtime took, and its name; None: PyTorch is measured.
    """
    taken, runtime = known or (measure_latency(models, example, rounds), "PyTorch")
    data.dense.latency_ms, data.pruned.latency_ms = taken["dense"], taken["pruned"]
    data.latency_runtime = runtime
