"""The ResNet + ConvGRU model of neural responses as a LightningModule."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.arguments import FinalRate, LearningRate, NonNegative, Strength
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.schedule import Schedule
from lightning_prune.modules.scheduled_module import ScheduledModule
from lightning_prune.neural.arguments import (
    FrameShape,
    SessionCells,
    StdLimits,
    plain,
    read_sections,
    with_behavior,
)
from lightning_prune.neural.functional.own_rates import own_rates
from lightning_prune.neural.functional.poisson_loss import poisson_divergence, poisson_loss
from lightning_prune.neural.metrics.bits_per_spike import BitsPerSpike
from lightning_prune.neural.metrics.normalized_correlation import NormalizedCorrelation
from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.neural.network.options import ConvNetOptions, FrontendOptions, ReadoutOptions
from lightning_prune.neural.parameter_groups import parameter_groups
from lightning_prune.neural.results import say_paired, write_cells
from lightning_prune.neural.weights import adopt, adopt_core, core_parts
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.validation import check_arguments

_LEAST_COUNT = 1e-4  # spikes per frame; a silent cell has no logarithm
Batch = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


class NeuralResponseModule(ScheduledModule):
    """Train, validate and test a model that predicts spike counts from video and behaviour.

    A batch is ``(inputs, targets)``. Inputs: ``stimulus`` (B, 1, T, H, W), ``behavior`` (B, D),
    ``session`` (B,) int64. Targets: ``spikes`` (B, N) and ``valid`` (B, N) bool, padded to the
    session with the most cells; ``label`` (B,) int64 where the data have classes of the stimulus,
    ``repeat`` (B,) int64 where they repeat it, ``rate`` (B, N) where the true rates are known.

    Sessions share the core; each has a readout of its own. The loss is the masked Poisson negative
    log-likelihood; ``val/bps`` is the mean over sessions of the mean over cells of max(bits per
    spike, 0), against each cell's mean rate in the evaluated split. A test writes the value of
    every cell to ``bits_per_spike_dense.json`` or ``_pruned.json`` in the Trainer's
    ``default_root_dir``, and their paired difference where both are there.

    Args:
        cells: Number of cells of each session.
        weights: A file to start from: a checkpoint of this module with the same settings, pruned or
            not, or its state dict (``.safetensors`` too). Not kept as a hyper-parameter. With
            ``freeze`` only its core is taken, whatever sessions and cells it had.
        frames: T, frames of a window; None: 25.
        frame_shape: Height and width of a frame in pixels; None: [51, 51].
        behavior_dim: Numbers that describe the behaviour; None: what ``modulator`` says.
        frontend: Settings of ``FrontendOptions`` by name; None: the defaults.
        convnet: Settings of ``ConvNetOptions``.
        modulator: Settings of ``ModulatorOptions``.
        readout: Settings of ``ReadoutOptions``.
        lr: Largest learning rate, of AdamW.
        core_lr_scale: Learning rate of the core as a multiple of ``lr``.
        weight_decay: Of weights only: not of biases, norms, first hidden state, nor of the place
            and size of the readouts' masks.
        warmup_epochs: Epochs of linear warm-up, at most a third of the run.
        final_lr: Learning rate at the end as a fraction of the largest.
        schedule: Shape of the decay: linear, cosine or one_cycle.
        schedule_epochs: Epochs that the schedule spans, after which the final rate stays; 0: the
            whole run.
        max_std: First and last limit of the readouts' standard deviations in pixels of the
            features: the masks are forced to narrow while it falls; None: no limit.
        max_std_epochs: Epochs over which the limit goes from the first to the last value.
        freeze: "core" trains readouts only, fresh ones for new sessions: the core of ``weights``
            stays as it is, as narrow as it was cut, and in eval mode. None trains everything.

    Attributes:
        network: The ``NeuralResponseNetwork``.
        pretrained: True when all weights came from a file.
        frozen: Whether the core is frozen.

    Raises:
        ValueError: an argument is out of range, two do not go together, or the weights are of
            another network.
        FileNotFoundError: there is no such weight file.

    Source: VisionCore, Yates Lab (MIT licence), from which the published model is known.
    """

    def __init__(
        self,
        cells: SessionCells = None,
        weights: str | None = None,
        frames: Annotated[int | None, Between(1, 10_000)] = None,
        frame_shape: FrameShape = None,
        behavior_dim: Annotated[int | None, AtLeast(1)] = None,
        frontend: FrontendOptions | dict[str, Any] | None = None,
        convnet: ConvNetOptions | dict[str, Any] | None = None,
        modulator: dict[str, Any] | None = None,
        readout: ReadoutOptions | dict[str, Any] | None = None,
        lr: LearningRate = 1e-3,
        core_lr_scale: Annotated[float, AtLeast(0, "a multiple of lr")] = 1.0,
        weight_decay: Strength = 1e-5,
        warmup_epochs: Annotated[float, AtLeast(0)] = 1.0,
        final_lr: FinalRate = 0.01,
        schedule: Schedule = "cosine",
        schedule_epochs: NonNegative = 0,
        max_std: StdLimits = None,
        max_std_epochs: NonNegative = 10,
        freeze: Literal["core"] | None = None,
    ):
        super().__init__()
        given = {
            "frontend": frontend, "convnet": convnet, "modulator": modulator, "readout": readout,
        }  # fmt: skip
        given["modulator"] = with_behavior(modulator, behavior_dim)
        options = read_sections(given)
        # All settings, so that a checkpoint does not depend on the defaults of a later version.
        frontend, convnet, modulator, readout = (plain(part) for part in options.values())
        frames = 25 if frames is None else frames
        frame_shape = [51, 51] if frame_shape is None else [*frame_shape]
        behavior_dim = options["modulator"].behavior_dim
        self.save_hyperparameters(ignore=["weights"])
        check_arguments(NeuralResponseModule.__init__, self.hparams)
        if cells is None:
            raise ValueError("cells is missing: pass the number of cells of each session")
        counts = [int(count) for count in self.hparams["cells"]]
        self.network = NeuralResponseNetwork(counts, **options)
        self.val_bps, self.test_bps = BitsPerSpike(counts), BitsPerSpike(counts)
        self.test_ccnorm = NormalizedCorrelation(counts)
        self.example_input_array = {
            "stimulus": torch.zeros(1, 1, frames, *frame_shape),
            "behavior": torch.zeros(1, behavior_dim),
        }
        track_architecture(self)
        self.frozen = freeze == "core"
        self.pretrained = weights is not None and not self.frozen
        self._is_fresh = weights is None
        if weights is not None:
            (adopt_core if self.frozen else adopt)(self, Path(weights))
        if self.frozen:
            for part in core_parts(self.network):
                part.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen core stays in eval mode, so that its norms and dropout rest."""
        super().train(mode)
        if self.frozen:
            for part in core_parts(self.network):
                part.eval()
        return self

    def forward(
        self, stimulus: Tensor, behavior: Tensor, session: Tensor | None = None
    ) -> list[Tensor] | Tensor:
        """Return log-rates: expected spikes per frame, as natural logarithms.

        Args:
            stimulus: (B, 1, T, H, W).
            behavior: (B, D) or (B, T, D).
            session: (B,) int64; then the result is (B, N), those of each sample's own session,
                zeros beyond its cells. None: a list of (B, N_s), those of every session.
        """
        rates: list[Tensor] = self.network(stimulus, behavior)
        return rates if session is None else own_rates(rates, session)

    def setup(self, stage: str) -> None:
        """Compare the data with the network, and let fresh readouts start at the mean rates.

        Raises:
            ValueError: they have other cells, another behaviour or other frames.
        """
        data = getattr(self.trainer, "datamodule", None)
        own = {
            "cells": self.hparams["cells"],
            "frames": self.hparams["frames"],
            "frame_shape": self.hparams["frame_shape"],
            "behavior_dim": self.hparams["behavior_dim"],
        }
        for name, value in own.items():
            found = getattr(data, name, None)
            found = list(found) if isinstance(found, tuple | list) else found
            expected = list(value) if isinstance(value, tuple | list) else value
            if found is not None and found != expected:
                shown = str(found).replace(" ", "")
                raise ValueError(
                    f"the data have {name}={shown}, the network was built with {expected}: pass "
                    f"model.{name}={shown} on the command line (null takes it from the data), "
                    f"{name}={found} in Python"
                )
        counts = getattr(data, "mean_counts", None) if stage == "fit" else None
        if counts is not None:
            self._start_at(counts)

    @torch.no_grad()
    def _start_at(self, mean_counts: Sequence[Tensor]) -> None:
        """Set the biases of readouts that are still at zero to the logarithm of mean counts."""
        own = dict(self.network.named_parameters())
        for index, counts in enumerate(mean_counts):
            bias = own.get(f"readouts.{index}.bias")
            if bias is not None and not bias.any():
                bias.copy_(counts.clamp_min(_LEAST_COUNT).log())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note that the weights are those of a file."""
        super().on_load_checkpoint(checkpoint)
        self._is_fresh = False

    def on_fit_start(self) -> None:
        """Refuse a frozen core that has come from no file.

        Raises:
            ValueError: it has not.
        """
        if self.frozen and self._is_fresh:
            raise ValueError(
                "freeze='core' without weights would train readouts on a core at its random start: "
                "pass weights=, a checkpoint whose core is to stay (model.weights= on the command "
                "line)"
            )

    @property
    def refuses_pruning(self) -> str | None:
        """Return why no stage may change this module; None where they may."""
        why = "its core is frozen (freeze='core'): leave the pruning recipe out, or prune first and"
        return f"{why} put new readouts on the pruned core afterwards" if self.frozen else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and log it."""
        inputs, targets = batch
        log_rate = own_rates(
            self.network(inputs["stimulus"], inputs["behavior"]), inputs["session"]
        )
        loss = poisson_loss(log_rate, targets["spikes"], targets["valid"])
        self.log(
            "train/loss", loss.detach(), prog_bar=True, on_epoch=True, on_step=False,
            batch_size=len(log_rate),
        )  # fmt: skip
        return loss

    distillation_loss = staticmethod(poisson_divergence)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Keep the readouts' masks within their limit."""
        limit = self._std_limit()
        if limit is not None:
            with torch.no_grad():
                for readout in self.network.readouts:
                    readout.get_parameter("std").clamp_(max=limit)

    def _std_limit(self) -> float | None:
        if self.hparams["max_std"] is None:
            return None
        first, last = self.hparams["max_std"]
        epochs = self.hparams["max_std_epochs"]
        part = min(self.current_epoch / epochs, 1.0) if epochs else 1.0
        return float(first + part * (last - first))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metric."""
        inputs, targets = batch
        rates = self.network(inputs["stimulus"], inputs["behavior"])
        self.val_bps.update_batch(rates, inputs["session"], targets)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        inputs, targets = batch
        rates = self.network(inputs["stimulus"], inputs["behavior"])
        self.test_bps.update_batch(rates, inputs["session"], targets)
        self.test_ccnorm.update_batch(rates, inputs["session"], targets)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the expected spikes per frame (B, N) of each sample's own session."""
        inputs = batch[0]
        rates = self.network(inputs["stimulus"], inputs["behavior"])
        return own_rates(rates, inputs["session"]).exp()

    def on_validation_epoch_end(self) -> None:
        """Log val/bps and that of every session."""
        self._log_summary("val", self.val_bps.summary())
        self.val_bps.reset()

    def on_test_epoch_end(self) -> None:
        """Log test/bps, CCnorm and the attainable value, and write those of every cell."""
        # torchmetrics makes a number of the tensor of a single cell.
        values = [value.reshape(-1) for value in self.test_bps.compute()]
        correlation = None
        if self.test_ccnorm.update_called:
            correlation = [value.reshape(-1) for value in self.test_ccnorm.compute()]
        summary = self.test_bps.summary()
        if correlation is not None:
            means = [found.nanmean() for found in correlation]
            summary["ccnorm"] = torch.stack(means).nanmean()
        attainable = getattr(
            getattr(self.trainer, "datamodule", None), "attainable_bits_per_spike", None
        )
        best = None if attainable is None else attainable("test")
        if best is not None:
            summary["attainable_bps"] = torch.as_tensor(best)
            summary["attained"] = summary["bps"] / best
        self._log_summary("test", summary)
        if self.trainer.is_global_zero:
            paired = write_cells(self, self.trainer.default_root_dir, values, correlation)
            if paired is not None:
                rank_zero_info(say_paired(paired))
        self.test_bps.reset()
        self.test_ccnorm.reset()

    def _log_summary(self, stage: str, summary: Mapping[str, Tensor]) -> None:
        self.log_dict(
            {
                f"{stage}/{name}": value.float()
                for name, value in summary.items()
                # Without a spike or a signal there is no value, not even NaN.
                if name == "bps" or value.isfinite()
            },
            prog_bar=stage == "val",
            sync_dist=True,  # the same on all ranks: the metrics have been reduced already
        )

    def object_positions(self, batch: Batch) -> ObjectSamples:
        """Return the class of the stimulus of every window, for selection by separability.

        Windows without a class (label -1) are left out.

        Raises:
            TypeError: the data have no labels.
        """
        label = batch[1].get("label")
        if label is None:
            raise TypeError(
                "the data have no stimulus classes to separate: give the sessions an array "
                "labels_<name> (for example fixation and saccade), or choose a recipe that needs "
                "none, such as +pruning=neural"
            )
        image = torch.nonzero(label >= 0).flatten()
        return ObjectSamples(image, label[image], torch.ones_like(image, dtype=torch.bool))

    def object_samples(self, batch: Batch, outputs: Any) -> ObjectSamples:
        """Return the class of the stimulus of every window; none is ever wrong."""
        return self.object_positions(batch)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Build AdamW with groups for core and readouts, decayed and not; frozen ones in none."""
        lr, decay = self.hparams["lr"], self.hparams["weight_decay"]
        core_lr = lr * self.hparams["core_lr_scale"]
        return torch.optim.AdamW(parameter_groups(self.network, lr, core_lr, decay), lr=lr)
