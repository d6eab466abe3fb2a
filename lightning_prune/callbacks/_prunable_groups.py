"""The channel groups of the module in training, tried once for all stages of a fit."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_prune.callbacks.protocol import AttentionMasker, NormingMasker
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.callbacks.trainer.trial_step import training_step_of
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.trace import trace_groups
from lightning_prune.runs.trainer.ranks import broadcast
from lightning_prune.surgery.trial_cut import try_groups, what_is_left_out


@dataclass(frozen=True)
class _Tried:
    """Groups of a module as wide as it was when they were tried."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    groups: ChannelGroups
    with_step: bool


_tried: WeakKeyDictionary[nn.Module, _Tried] = WeakKeyDictionary()


def prunable_groups(
    trainer: pl.Trainer, pl_module: pl.LightningModule, example: Any
) -> ChannelGroups:
    """Return the groups that masks and a cut were tried on, before the first batch.

    From ``on_train_start`` on, when there are data, one ``training_step`` of a cut copy is tried
    as well: something that only the loss uses may take channels.

    Args:
        trainer: The running Trainer.
        pl_module: Its module.
        example: Its input.

    Raises:
        ValueError: the forward pass fails, or cannot be traced; or stages differ in ``norms`` or
            ``attention``.

    Warns:
        UserWarning: groups that were traced cannot be cut; how many, and why.
    """
    shapes = tuple((name, tuple(p.shape)) for name, p in pl_module.named_parameters())
    known = _tried.get(pl_module)
    norms: Norms = _agreed(trainer, NormingMasker, "norms") or "exact"
    attention: Attention = _agreed(trainer, AttentionMasker, "attention") or "heads"
    wanted = (shapes, norms, attention)
    if known is not None and (known.shapes, known.groups.norms, known.groups.attention) != wanted:
        known = None
    has_data = trainer.train_dataloader is not None
    if known is not None and (known.with_step or not has_data):
        return known.groups
    step = training_step_of(trainer, pl_module) if has_data else None
    if known is None or step is not None:
        with forward_context(trainer):
            traced = (
                known.groups
                if known is not None
                else trace_groups(
                    pl_module, example, step=step, notify=rank_zero_info, attention=attention
                )
            )
            traced = traced.with_norms(norms)
            groups, refused = try_groups(
                pl_module, example, traced, step=step, notify=rank_zero_info
            )
        # A process that is slower would refuse more, where the time of the trial ends.
        groups, refused = broadcast(trainer, (groups, refused))
        if refused:
            rank_zero_warn(what_is_left_out(refused))
    else:
        groups = known.groups
    _tried[pl_module] = _Tried(shapes, groups, has_data)
    return groups


def _agreed(trainer: pl.Trainer, protocol: type, name: str) -> Any:
    """Return what the maskers of a run that have an attribute all want; None where none has it."""
    maskers = [c for c in trainer.callbacks if isinstance(c, protocol)]  # type: ignore[attr-defined]
    wanted = {getattr(masker, name) for masker in maskers}
    if len(wanted) > 1:
        said = (f"{name}={getattr(m, name)!r} of {type(m).__name__}" for m in maskers)
        raise ValueError(
            f"{' and '.join(said)} cannot both be: all are cut at once, so give them the same"
        )
    return wanted.pop() if wanted else None
