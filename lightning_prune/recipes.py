"""The recipes of `conf/pruning/` in Python: each returns its stages, in the order of the pipeline.

The stages are Lightning callbacks: ``Trainer(callbacks=recipes.channel(mac_target=0.5))``. What a
function does not name itself is passed on to the masker: ``recipes.channel(round_to=4)``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback

from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.label_free_steps import LabelFreeSteps
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.penalties.bn_scale_penalty import BNScalePenalty
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.recipe_stages import (
    Folder,
    Layers,
    channel_masker,
    cut_stages,
    dense_checkpoint,
    folder_text,
    slice_stages,
)
from lightning_prune.runs.configuration.resolvers import part
from lightning_prune.validation import known_arguments


def channel(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    layers: Layers = None,
    reg: float = 0.005,
    penalty: ChannelPenalty | None = None,
    folder: Folder = None,
    monitor: str | None = None,
    **masker: Any,
) -> list[Callback]:
    """Return the stages that push weak channels towards zero, mask step by step, and cut.

    Args:
        mac_target: Fraction of the dense model's MACs that remains, in (0, 1); None: the schedule
            runs to its end.
        dense_epochs: Epochs before the first mask.
        recovery_epochs: Epochs from the first mask to the end of training.
        criterion: How important a channel is; None: ``GroupNorm``.
        layers: Names or patterns of the layers to regularize and prune, or a rule; None: all.
        reg: Strength of the regularization, at least 0; try 5e-2, 5e-3 and 5e-4.
        penalty: How hard which channel is pushed; None: ``GroupNormPenalty``.
        folder: Where checkpoints and report are written; None: the Trainer's folders, and the
            dense model is not kept.
        monitor: Metric of the best checkpoint after the cut, larger is better; None: the latest.
        masker: Further arguments of ``ChannelMasker``.

    Raises:
        TypeError: an argument that neither the recipe nor the masker has.
        ValueError: one that is out of range.

    Example:
        >>> [type(stage).__name__ for stage in channel(mac_target=0.3)][:3]
        ['ChannelRegularizer', 'ChannelMasker', 'PhysicalPruner']
    """
    end = dense_epochs + part(recovery_epochs, 0.75)
    masks = channel_masker(dense_epochs, end, mac_target, criterion, layers, folder, masker)
    regularizer = ChannelRegularizer(reg, penalty=penalty, layers=layers)
    return [regularizer, masks, *cut_stages(folder, monitor)]


def bn_scale(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    reg: float = 0.0005,
    penalty: ChannelPenalty | None = None,
    **settings: Any,
) -> list[Callback]:
    """Return the stages of ``channel`` by the scales of batch norms (network slimming).

    Args:
        mac_target: As in ``channel``, like all that is not named here.
        dense_epochs: Epochs before the first mask.
        recovery_epochs: Epochs from the first mask to the end of training.
        criterion: How important a channel is; None: ``BNScale``.
        reg: Strength of the regularization, at least 0; try 1e-3, 5e-4 and 1e-4.
        penalty: How hard which channel is pushed; None: ``BNScalePenalty``.
        settings: Further arguments of ``channel``.
    """
    return channel(
        mac_target,
        dense_epochs,
        recovery_epochs,
        criterion=criterion or BNScale(),
        reg=reg,
        penalty=penalty or BNScalePenalty(),
        **settings,
    )


def neural(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    **settings: Any,
) -> list[Callback]:
    """Return the stages of ``channel`` for models of neural responses: by ``Fisher``, no penalty.

    Args:
        mac_target: As in ``channel``, like all that is not named here.
        dense_epochs: Epochs before the first mask.
        recovery_epochs: Epochs from the first mask to the end of training.
        criterion: How important a channel is; None: ``Fisher``.
        settings: Further arguments of ``channel``.
    """
    own = {
        "fast_widths": None,
        "keep_range": (0.25, 1.0),
        "round_to": 4,
        "compensate_images": 256,
        "gradient_images": 1024,
    }
    chosen = {"criterion": criterion or Fisher(), **own, **settings}
    return channel(mac_target, dense_epochs, recovery_epochs, **chosen)[1:]


def magnitude(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    layers: Layers = None,
    folder: Folder = None,
    monitor: str | None = None,
    **masker: Any,
) -> list[Callback]:
    """Return the stages that mask the smallest filters and cut them at the start of one epoch.

    Args:
        mac_target: As in ``channel``, like all that is not named here.
        dense_epochs: Epochs before the cut.
        criterion: How important a channel is; None: ``Magnitude``.
        layers: Names or patterns of the layers to prune, or a rule; None: all.
        folder: Where checkpoints and report are written.
        monitor: Metric of the best checkpoint after the cut.
        masker: Further arguments of ``ChannelMasker``.
    """
    at_once = {"hold_epochs": 0, "recalibrate_images": 0, "compensate_images": 0} | masker
    end, chosen = dense_epochs + 1, criterion or Magnitude()
    masks = channel_masker(dense_epochs, end, mac_target, chosen, layers, folder, at_once)
    return [masks, *cut_stages(folder, monitor)]


def compress(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    layers: Layers = None,
    steps: int = 300,
    seed: int = 0,
    folder: Folder = None,
    monitor: str | None = None,
    **masker: Any,
) -> list[Callback]:
    """Return the stages that cut in one step, at the widths that lose least once refitted.

    Then the cut network takes label-free steps towards the dense one, and is trained on.

    Args:
        mac_target: As in ``channel``, like all that is not named here.
        dense_epochs: Epochs before the cut; 0 where the network is trained already.
        criterion: Which channels stay at a layer's width; None: ``Reconstruction``.
        layers: Names or patterns of the layers to prune, or a rule; None: all.
        steps: Label-free steps.
        seed: Of the order of their batches.
        folder: Where the dense network, checkpoints and report are written.
        monitor: Metric of the best checkpoint after the cut.
        masker: Further arguments of ``ChannelMasker``.

    Raises:
        ValueError: no folder: the dense network is read from there.
    """
    if folder is None:
        raise ValueError(
            "recipes.compress reads the dense network again after the cut: pass folder=PATH"
        )
    at_once = {
        "keep_range": (0.125, 1.0),
        "ranking": "measured",
        "fast_widths": None,
        "hold_epochs": 0,
        "recalibrate_images": 0,
        "compensate_images": 256,
    } | masker
    end, chosen = dense_epochs + 1, criterion or Reconstruction()
    masks = channel_masker(dense_epochs, end, mac_target, chosen, layers, folder, at_once)
    pruner, *rest = cut_stages(folder, monitor, recalibrate_images=0)
    return [masks, pruner, LabelFreeSteps(steps, seed=seed), *rest]


def sequential_activation(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    *,
    criterion: Criterion | None = None,
    layers: Layers = None,
    seed: int = 0,
    folder: Folder = None,
    monitor: str | None = None,
    **masker: Any,
) -> list[Callback]:
    """Return the stages that choose channels by class separability, front to back, and cut.

    Args:
        mac_target: As in ``channel``, like all that is not named here; None: each layer's knee.
        dense_epochs: Epochs before the first layers are masked.
        criterion: Which channels stay at a layer's width; None: ``Separability``.
        layers: Names or patterns of the layers to prune, or a rule; None: all.
        seed: Seed of the embedding, of k-medoids and of background cells.
        folder: Where checkpoints and report are written.
        monitor: Metric of the best checkpoint after the cut.
        masker: Further arguments of ``SequentialActivationMasker``.
    """
    chosen = {
        "start_epoch": dense_epochs,
        "mac_target": mac_target,
        "criterion": criterion,
        "layers": layers,
        "seed": seed,
        "clusterer": ChannelClusterer(seed=seed),
        "dense_checkpoint": dense_checkpoint(folder),
    }
    further = known_arguments(SequentialActivationMasker, masker)
    masks = SequentialActivationMasker(**chosen | further)
    return [masks, *cut_stages(folder, monitor, recalibrate_images=64)]


def separability(
    mac_target: float | None = 0.5, dense_epochs: int = 12, **settings: Any
) -> list[Callback]:
    """Return the stages of ``sequential_activation`` that trust separability only where it is.

    Widths follow the number of different profiles; where separability is noise, the norm chooses.

    Args:
        mac_target: As in ``channel``, like all that is not named here; None: each layer's count.
        dense_epochs: Epochs before the first layers are masked.
        settings: Further arguments of ``sequential_activation``.
    """
    chosen = {"count": "distinct", "noise_criterion": GroupNorm(), **settings}
    return sequential_activation(mac_target, dense_epochs, **chosen)


def slice(
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    *,
    reg: float = 1e-5,
    folder: Folder = None,
    **masker: Any,
) -> list[Callback]:
    """Return the stages that push slices of weights towards zero and hold the smallest there.

    Args:
        dense_epochs: Epochs before the first mask.
        recovery_epochs: Epochs from the first mask to the end of training.
        reg: Strength of the regularization, at least 0.
        folder: Where the report is written.
        masker: Further arguments of ``SliceMasker``.
    """
    end = dense_epochs + part(recovery_epochs, 0.5)
    stages = slice_stages(reg, 0, {"start_epoch": dense_epochs, "end_epoch": end} | masker)
    return [*stages, PruningReport(folder_text(folder), latency_rounds=0)]


def channel_and_slice(
    mac_target: float | None = 0.5,
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    *,
    slice_reg: float = 1e-5,
    slices: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[Callback]:
    """Return the stages of ``channel``, and those that hold slices of what remains at zero.

    Args:
        mac_target: As in ``channel``, like all that is not named here.
        dense_epochs: Epochs before the first mask.
        recovery_epochs: Epochs from the first mask to the end of training.
        slice_reg: Strength of the regularization of slices, at least 0.
        slices: Further arguments of ``SliceMasker``.
        settings: Further arguments of ``channel``.
    """
    regularizer, masks, *rest = channel(mac_target, dense_epochs, recovery_epochs, **settings)
    start = dense_epochs + part(recovery_epochs, 0.5)
    end = start + part(recovery_epochs, 0.25)
    chosen = {"start_epoch": start, "end_epoch": end} | dict(slices or {})
    slice_regularizer, slice_masks = slice_stages(slice_reg, dense_epochs, chosen)
    return [regularizer, slice_regularizer, masks, slice_masks, *rest]


def channel_reset(
    dense_epochs: int = 12, *, folder: Folder = None, **resetter: Any
) -> list[Callback]:
    """Return the stages that count used channels and re-initialize dormant ones; nothing is cut.

    Args:
        dense_epochs: Epochs with resets.
        folder: Where the report is written.
        resetter: Further arguments of ``ChannelResetter``.
    """
    chosen = {"end_epoch": dense_epochs} | known_arguments(ChannelResetter, resetter)
    return [ChannelResetter(**chosen), PruningReport(folder_text(folder), latency_rounds=0)]


RECIPES: dict[str, Callable[..., list[Callback]]] = {
    recipe.__name__: recipe
    for recipe in (
        channel,
        sequential_activation,
        separability,
        bn_scale,
        magnitude,
        compress,
        neural,
        channel_and_slice,
        slice,
        channel_reset,
    )
}
"""Name of each recipe, as in ``+pruning=NAME`` -> its function."""
