"""The channel reset stage: counts which channels are used, and re-initializes some of them."""

from functools import partial
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.arguments import Count, Epoch, OptionalCount
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._schedule import check_end
from lightning_prune.callbacks._usage_warnings import warn_of_unseen, warn_of_usage
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.engine.channel_reset import (
    Originals,
    channels_to_reset,
    copy_layers,
    originals_after_cut,
    remember_originals,
    reset_layers,
)
from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.observe.usage_counter import usage_stats
from lightning_prune.observe.usage_history import UsageHistory
from lightning_prune.policies.layers.resettable_layers import resettable_layers
from lightning_prune.policies.selection.reset_choice import Which
from lightning_prune.runs.trainer.fit_state import trains
from lightning_prune.runs.trainer.ranks import broadcast, total
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.reinitialize import ResetType
from lightning_prune.validation import validated


class ChannelResetter(PruningStage):
    """Count which channels are used in training, and re-initialize some of them now and then.

    A channel is used in a batch where the mean magnitude of its layer's output, after norm and
    activation, exceeds ``threshold``; it is unused when that happened in no batch since the last
    reset. At the start of the epochs ``start_epoch + every_n_epochs``, ``start_epoch + 2
    every_n_epochs``, ... < ``end_epoch`` the chosen channels get new weights and a fresh norm, in
    averaged copies of the model too, and the optimizers forget what they know of these rows.
    Channels that a masker holds at zero are never touched.

    Every epoch ``usage/ratio`` (used / all channels), ``usage/reset`` (channels reset at its
    start) and ``usage/<layer>`` are logged; ``PruningReport`` writes and draws them.

    Args:
        every_n_epochs: Epochs from one reset to the next; None: only track.
        start_epoch: First epoch (0-based) that is tracked.
        end_epoch: First epoch at whose start nothing is reset; None: the last one too.
        which: ``unused``: dormant channels; ``used``: the others, what they learnt is lost;
            ``all``.
        reset_type: ``random`` (Xavier), ``original`` (the values that training started with; they
            are kept in checkpoints) or ``zero``.
        threshold: Mean magnitude above which a channel is used, at least 0.
        layers: Names or patterns of convolution and linear layers; None: all with an activation.
        min_batches: Batches, over all processes, that must have been tracked before a channel is
            judged: not yet seen is not dead.
        every_n_batches: Of the batches of an epoch every n-th is tracked.
        only_below: Reset only in layers whose ratio of used channels is below it, in (0, 1];
            None: in all.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, or one that
            cannot be reset, an unsupported strategy.

    Source: the project's CSP_Reset guide; dormant units: G. Sokar, R. Agarwal, P. S. Castro,
    U. Evci, 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, arXiv 2302.12902.
    """

    @validated
    def __init__(
        self,
        every_n_epochs: OptionalCount = 4,
        start_epoch: Epoch = 0,
        end_epoch: int | None = None,
        which: Which = "unused",
        reset_type: ResetType = "random",
        threshold: Annotated[float, AtLeast(0, "the mean magnitude of a channel in use")] = 1e-6,
        layers: list[str] | None = None,
        min_batches: Count = 10,
        every_n_batches: Count = 1,
        only_below: Annotated[
            float | None, Between(0, 1, "the ratio of used channels below which to reset", "(]")
        ] = None,
    ) -> None:
        check_end(end_epoch, start_epoch)
        self.every_n_epochs = every_n_epochs
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.which = which
        self.reset_type: ResetType = reset_type
        self.threshold = threshold
        self.layers = layers
        self.min_batches = min_batches
        self.every_n_batches = every_n_batches
        self.only_below = only_below
        self._usage: ChannelUsage | None = None
        self._saved: dict[str, Any] | None = None
        self._originals: Originals = {}
        self._seed: int | None = None
        self._reset_epoch: int | None = None
        self._reset_now: dict[str, int] = {}
        self._looks = 0
        self._history = UsageHistory()

    # --- what it knows ----------------------------------------------------------------------

    @property
    def usage_history(self) -> dict[str, Any]:
        """``UsageHistory`` of what is not masked, since the last reset, and ``threshold``."""
        return {"threshold": self.threshold, **self._history.state_dict()}

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return when channels are reset, in words; None: never."""
        if self.every_n_epochs is None:
            return None
        first = self.start_epoch + self.every_n_epochs
        return (
            f"channels are reset at the start of epoch {first + 1}, then every "
            f"{self.every_n_epochs} epochs"
        )

    def doing(self, epoch: int) -> str | None:
        """Return whether channels were reset in an epoch, in a word."""
        # Without the counts an epoch would be named in which nothing had to be reset.
        return "reset" if epoch == self._reset_epoch and any(self._reset_now.values()) else None

    def get_channel_usage_report(self) -> dict[str, dict[str, Any]]:
        """Return the guide's statistics of every layer since the last reset, of this process."""
        return {} if self._usage is None else self._usage.stats()

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers before the first batch."""
        self._usage = None
        self._warn_of_no_effect(trainer)
        if pl_module.example_input_array is not None:
            self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore a resumed run's counts."""
        self._prepare(trainer, pl_module)
        if self._saved is not None and self._usage is not None:
            # Sums over all processes: one of them continues them.
            self._usage.load_state_dict(self._saved, first=trainer.is_global_zero)
        self._saved = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset where that is due at this epoch; once."""
        self._reset_now = {}
        epoch = trainer.current_epoch
        if self._is_due(epoch) and self._usage is not None and self._reset_epoch != epoch:
            self._reset_epoch = epoch
            self._reset(trainer, pl_module, self._usage)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch the layers during the batches that are tracked."""
        tracked = trainer.current_epoch >= self.start_epoch and not batch_idx % self.every_n_batches
        if tracked and self._usage is not None:
            self._usage.start()

    def on_train_batch_end(self, *_: Any) -> None:
        """End the watch."""
        if self._usage is not None:
            self._usage.stop()

    def on_exception(self, *_: Any) -> None:
        """End the watch."""
        self.on_train_batch_end()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the usage, and remember it for the report."""
        if self._usage is None or trainer.current_epoch < self.start_epoch:
            return
        counts, passes = self._usage.read(partial(total, trainer))
        if not self._history:
            warn_of_unseen([name for name, number in passes.items() if not number])
        masked = Pipeline.of(trainer).masked_channels()
        stats = {name: usage_stats(count, masked.get(name, ())) for name, count in counts.items()}
        usage = {name: (one["total_channels"], one["used_channels"]) for name, one in stats.items()}
        history = self._history
        history.add(trainer.current_epoch, usage, self._reset_now)
        ratio = history.total("used") / max(1, history.total("channels"))
        values = {"ratio": ratio, "reset": float(history.total("reset")), **history.ratios()}
        for name, value in values.items():
            pl_module.log(f"usage/{name}", value, batch_size=1, sync_dist=True)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Keep counts and original values of the channels that are left."""
        if self._usage is None:
            return
        self._originals = originals_after_cut(self._originals, pl_module, pruned)
        outputs = layer_outputs(pl_module, example_input(trainer, pl_module))
        self._usage = self._usage.after_cut(pl_module, outputs, pruned)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the counts for another fit; say where there was never a channel to reset."""
        if self._usage is not None:
            self._saved = self._usage.state_dict(partial(total, trainer))
        if trains(trainer) and self._looks and not self._history.resets():
            below = "" if self.only_below is None else f", or raise only_below={self.only_below}"
            rank_zero_warn(
                f"ChannelResetter(which={self.which!r}) has no effect: at {self._looks} looks no "
                f"layer had a channel to reset; where every channel counts as used, raise "
                f"threshold={self.threshold}{below}, or leave the callback out"
            )

    # --- checkpoints ------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the counts of all processes: ``state_dict`` cannot ask the others."""
        if self._usage is not None:
            counts = self._usage.state_dict(partial(total, trainer))
            checkpoint["callbacks"][self.state_key]["usage"] = counts

    def state_dict(self) -> dict[str, Any]:
        """Return originals, progress and history as plain data, the same on every process."""
        return {
            "usage": self._saved,
            "originals": {name: dict(values) for name, values in self._originals.items()},
            "seed": self._seed,
            "reset_epoch": self._reset_epoch,
            "reset_now": dict(self._reset_now),
            "looks": self._looks,
            "history": self._history.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore originals, progress and history."""
        self._saved = state_dict["usage"]
        self._originals = {name: dict(v) for name, v in state_dict["originals"].items()}
        self._seed = state_dict["seed"]
        self._reset_epoch = state_dict["reset_epoch"]
        self._reset_now = dict(state_dict["reset_now"])
        self._looks = state_dict["looks"]
        self._history.load_state_dict(state_dict["history"])

    # --- inside -----------------------------------------------------------------------------

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._usage is not None:
            return
        outputs = layer_outputs(pl_module, example_input(trainer, pl_module))
        chosen = resettable_layers(pl_module, outputs, self.layers)
        if not chosen:
            rank_zero_warn(
                "ChannelResetter has no effect: no layer has an activation behind it; name layers "
                "in `layers`"
            )
        usage = ChannelUsage(pl_module, chosen, self.threshold)
        if self._seed is None:
            self._seed = int(broadcast(trainer, torch.initial_seed()))
        if self.reset_type == "original":
            remember_originals(self._originals, pl_module, usage)
        self._usage = usage

    def _is_due(self, epoch: int) -> bool:
        since = epoch - self.start_epoch
        if self.every_n_epochs is None or since <= 0 or since % self.every_n_epochs:
            return False
        return self.end_epoch is None or epoch < self.end_epoch

    def _reset(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, usage: ChannelUsage
    ) -> None:
        counts, passes = usage.read(partial(total, trainer))
        ready = [name for name, number in passes.items() if number >= self.min_batches]
        if len(ready) < len(passes):
            rank_zero_warn(
                f"ChannelResetter waits at epoch {trainer.current_epoch + 1}: "
                f"{len(passes) - len(ready)} of {len(passes)} layers were tracked in fewer than "
                f"min_batches={self.min_batches} batches (the fewest: {min(passes.values())}); "
                "train longer between resets, or lower min_batches"
            )
        self._looks += bool(ready)
        pipeline = Pipeline.of(trainer)
        masked = pipeline.masked_channels()
        stats = {name: usage_stats(counts[name], masked.get(name, set())) for name in ready}
        warn_of_usage(stats, self.which, self.threshold)
        tracked = {name: counts[name] for name in ready}
        chosen = channels_to_reset(tracked, self.which, masked, self.only_below)
        seed = f"{self._seed} {trainer.current_epoch}"
        reset_layers(
            pl_module,
            usage,
            chosen,
            self.reset_type,
            self._originals,
            trainer.optimizers,
            seed,
        )
        # Before the averages get them: columns and slices of the new rows may be masked.
        pipeline.apply_masks()
        copy_layers(pl_module, usage, chosen, averaged_copies(trainer))
        usage.clear(ready)
        self._reset_now = {name: len(channels) for name, channels in chosen.items()}
        rank_zero_info(
            f"Epoch {trainer.current_epoch + 1}: reset {sum(self._reset_now.values())} channels of "
            f"{len(chosen)} layers ({self.which}, {self.reset_type})."
        )

    def _warn_of_no_effect(self, trainer: pl.Trainer) -> None:
        last = trainer.max_epochs
        if last is None or last < 0:
            return
        if self.start_epoch >= last:
            rank_zero_warn(
                f"ChannelResetter has no effect: start_epoch={self.start_epoch} is after the "
                f"last epoch (max_epochs={last})"
            )
        elif self.every_n_epochs is not None and not any(
            self._is_due(epoch) for epoch in range(last)
        ):
            rank_zero_warn(
                f"ChannelResetter resets nothing: its first reset would come at epoch "
                f"{self.start_epoch + self.every_n_epochs + 1}, and end_epoch={self.end_epoch}, "
                f"max_epochs={last}; lower every_n_epochs or train longer (every_n_epochs=null "
                "only tracks)"
            )
