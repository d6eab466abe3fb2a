"""The regularize stage: weak channels are pushed towards zero while the model trains."""

import importlib
from collections.abc import Mapping
from typing import Annotated

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from lightning_prune.annotations import Between
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._prunable_groups import prunable_groups
from lightning_prune.callbacks._ranges import Epoch, Strength
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.regularizing_stage import RegularizingStage
from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.layers.layer_rule import LayerChoice, select_groups
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization
from lightning_prune.policies.penalties.group_norm_penalty import GroupNormPenalty
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated


class ChannelRegularizer(RegularizingStage[ChannelRegularization]):
    r"""Add a penalty on whole channels to the gradients, once per optimizer step.

    .. math:: g \mathrel{+}= \gamma (\text{reg} + \text{mac\_reg} \, m_g) \, s_k w

    for the weights w of channel k of group g, after unscaling and reduction over processes and
    before clipping. Channels that a masker holds at zero get nothing.

    Every epoch ``regularize/mean_norm`` (mean norm of the channels) and ``regularize/low_channels``
    (fraction of channels under the threshold) are logged, and histograms of the norms where the
    logger is TensorBoard or Weights & Biases.

    Args:
        reg: Strength for every group, >= 0; try 5e-2, 5e-3 and 5e-4.
        mac_reg: Additional strength, >= 0, of the group whose channels cost the most MACs; others
            in proportion.
        gamma: Scale of the whole term, >= 0.
        penalty: What is penalised; None: ``GroupNormPenalty(alpha=4.0)``.
        layers: Names or patterns of the layers whose channels are regularized, or a rule such as
            ``WidestLayers``; None: all prunable layers.
        start_epoch: First epoch (0-based) with the penalty.
        end_epoch: First epoch without it, whether channels were cut before or not; None: until the
            cut, or the end of training.
        threshold: A channel counts as low below this fraction, in (0, 1), of the largest norm in
            its group.
        histograms: Write a histogram of the norms per group and epoch.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, a penalty that
            acts on none of the layers, an unsupported strategy.

    Source: Fang, Ma, Song, Mi, Wang, 2023, DepGraph: Towards Any Structural Pruning, CVPR,
    arXiv 2301.12900.
    """

    @validated
    def __init__(
        self,
        reg: Strength = 5e-3,
        mac_reg: Strength = 0.0,
        gamma: Strength = 1.0,
        penalty: ChannelPenalty | None = None,
        layers: LayerChoice = None,
        start_epoch: Epoch = 0,
        end_epoch: int | None = None,
        threshold: Annotated[
            float, Between(0, 1, "a fraction of the group's largest norm", "()")
        ] = 0.1,
        histograms: bool = True,
    ) -> None:
        super().__init__(start_epoch, end_epoch)
        self.reg = reg
        self.mac_reg = mac_reg
        self.gamma = gamma
        self.penalty = penalty or GroupNormPenalty()
        self.layers = layers
        self.threshold = threshold
        self.histograms = histograms

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers before the first batch."""
        self._warn_of_no_effect(trainer)
        self._regularization = None
        if pl_module.example_input_array is not None:
            self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers where only the training data give an example input."""
        self._prepare(trainer, pl_module)
        self._knows_masks = False

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Stop, or continue with the cut model's groups where an ``end_epoch`` says so."""
        self._cut, self._regularization = True, None
        self._prepare(trainer, pl_module)
        self._knows_masks = False

    # --- inside -----------------------------------------------------------------------------

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._regularization is not None or (self._cut and self.end_epoch is None):
            return
        example = example_input(trainer, pl_module)
        groups = prunable_groups(trainer, pl_module, example)
        names = select_groups(self.layers, pl_module, groups)
        macs = MacModel.of(pl_module, groups, example) if self.mac_reg else None
        regularization = ChannelRegularization(
            pl_module, groups, names, self.penalty, self.reg, self.mac_reg, self.gamma, macs
        )
        if not names:
            rank_zero_warn("ChannelRegularizer has no effect: `layers` selects no layer")
        elif not regularization.weights.trainable():
            rank_zero_warn("ChannelRegularizer has no effect: all weights it acts on are frozen")
        self._regularization = regularization

    def _warn_of_no_effect(self, trainer: pl.Trainer) -> None:
        last = trainer.max_epochs
        if self.gamma * (self.reg + self.mac_reg) == 0:
            rank_zero_warn(
                f"ChannelRegularizer has no effect: reg={self.reg}, mac_reg={self.mac_reg}, "
                f"gamma={self.gamma}; it only logs the norms"
            )
        elif last is not None and 0 <= last <= self.start_epoch:
            rank_zero_warn(
                f"ChannelRegularizer has no effect: start_epoch={self.start_epoch} is after the "
                f"last epoch (max_epochs={last})"
            )

    def _follow_masks(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        regularization: ChannelRegularization,
    ) -> None:
        regularization.set_masked(Pipeline.of(trainer).plan)

    def _log(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        regularization: ChannelRegularization,
    ) -> None:
        mean, low = regularization.summary(self.threshold)
        pl_module.log("regularize/mean_norm", mean, sync_dist=True)
        pl_module.log("regularize/low_channels", low, sync_dist=True)
        if self.histograms:
            _write_histograms(trainer, regularization.norms())


@rank_zero_only
def _write_histograms(trainer: pl.Trainer, norms: Mapping[str, Tensor]) -> None:
    names = {f"regularize/norms/{name}": values for name, values in norms.items() if len(values)}
    if names:
        names = {"regularize/norms": torch.cat(list(names.values())), **names}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            wandb = importlib.import_module("wandb")
            content = {name: wandb.Histogram(values.numpy()) for name, values in names.items()}
            logger.experiment.log({**content, "trainer/global_step": trainer.global_step})
        elif hasattr(logger, "experiment") and hasattr(logger.experiment, "add_histogram"):
            for name, values in names.items():
                logger.experiment.add_histogram(name, values, trainer.global_step)
