"""The distil stage: the pruned network learns from the dense one of the same run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_prune.annotations import Above, AtLeast
from lightning_prune.callbacks._dense_network import DenseNetwork, dense_file
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.protocol import SliceHolder
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.training_step import StepAround, with_loss
from lightning_prune.engine.dense_twin import DenseTwin
from lightning_prune.engine.kept_features import feature_widths, kept_channels
from lightning_prune.engine.outer_calls import main_call, outer_calls
from lightning_prune.engine.second_loss import SecondLoss
from lightning_prune.graph.forward_pass import eager
from lightning_prune.graph.model_inputs import batch_length
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.fit_state import trains
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated

Step = Callable[..., Any]


class Distiller(PruningStage):
    r"""Train the pruned network towards the dense one of the same run, beside its own task.

    .. math:: L = L_\text{task} + w_o L_\text{outputs} + w_f L_\text{features}

    from the first mask, or from the cut, to the end. The dense network is the file that the masker
    writes before its first mask (``dense_checkpoint``; averaged weights, where there are some): in
    eval mode, without gradients, on every rank, and in no checkpoint of the run. A resumed run
    reads the same file, known by the digest of its weights.

    The loss is added to what ``training_step`` returns, so that it is scaled, clipped, accumulated
    and reduced like the task's. The outputs and features are those of the step's own forward pass;
    the dense network sees the same inputs. Features are compared channel by channel: the plan says
    which channel of the dense network each one is. Every epoch ``distill/loss`` is logged.

    Outputs are compared by the module's ``distillation_loss(outputs, dense_outputs)``; without one,
    class scores (B, K) with integer targets by the divergence of softened probabilities, and other
    outputs by their squared error relative to the variance of the dense ones. A module whose loss
    is a sum over the images of a batch says so (``sums_loss = True``): then this one is, too.

    Args:
        outputs: Weight of the outputs, at least 0.
        features: Weight of the features, at least 0: mean over up to 17 layers of the squared
            difference, in variances of the features.
        start: ``mask``: from the first masked channels (or slices); ``cut``: from the cut.
        temperature: By which class scores are divided where a module does not say how its outputs
            are compared.
        teacher: A checkpoint of the same network before it was pruned, instead of the masker's.

    Raises:
        ValueError: an argument is out of range; before training: no dense network to learn from, a
            file that is missing, was changed or is of another network (with features: of another
            width), manual optimization; at the first batch: a training step that calls no network.

    Source: Hinton, Vinyals, Dean, 2015, Distilling the Knowledge in a Neural Network,
    arXiv 1503.02531.
    """

    acts_from = "masks"

    @validated
    def __init__(
        self,
        outputs: Annotated[float, AtLeast(0, "the weight of the outputs")] = 1.0,
        features: Annotated[float, AtLeast(0, "the weight of the features")] = 1.0,
        start: Literal["mask", "cut"] = "mask",
        temperature: Annotated[float, Above(0, "a temperature")] = 4.0,
        teacher: str | None = None,
    ) -> None:
        self.outputs = outputs
        self.features = features
        self.start = start
        self.temperature = temperature
        self.teacher = teacher
        self._dense = DenseNetwork("Distiller", teacher)
        self._start_epoch: int | None = None
        self._kept: dict[str, Tensor] | None = None
        self._around: StepAround | None = None
        self._module: pl.LightningModule | None = None
        self._twin: DenseTwin | None = None
        self._loss: SecondLoss | None = None
        self._layer: str | None = None
        self._knows_masks = False

    @property
    def distillation(self) -> Mapping[str, Any]:
        """Return the weights and since which epoch (0-based; None: not yet), for the report."""
        weights = {"outputs": float(self.outputs), "features": float(self.features)}
        return {"epoch": self._start_epoch, **weights}

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return from when the dense network is learnt from, in words; None: never."""
        if not self._acts:
            return None
        when = "the first mask" if self.start == "mask" else "the cut"
        weights = f"outputs weigh {self.outputs:g}, features {self.features:g}"
        return f"the dense network is learnt from as well, from {when} on ({weights})"

    def doing(self, epoch: int) -> str | None:
        """Return whether an epoch learnt from the dense network, in a word."""
        begun = self._start_epoch is not None and epoch >= self._start_epoch
        return "distil" if self._acts and begun else None

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse modules whose training step returns no loss."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self._acts and not pl_module.automatic_optimization:
            raise ValueError(
                f"Distiller adds to the loss that training_step returns, and "
                f"{type(pl_module).__name__} optimizes by hand (automatic_optimization=False): "
                "leave the Distiller out"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the dense network, as far as it is there yet."""
        if not self._acts:
            rank_zero_warn(
                "Distiller has no effect: outputs and features both weigh 0; raise one of them or "
                "leave the callback out"
            )
            return
        pipeline = Pipeline.of(trainer)
        holders = [c for c in callbacks_of(trainer) if isinstance(c, SliceHolder)]
        if not pipeline.maskers and not holders:
            raise ValueError(
                "Distiller has no pruned network to train: no callback masks channels or slices; "
                "add a masker, such as those of +pruning=channel"
            )
        if self._dense.is_known or self.teacher is not None:
            self._twin = DenseTwin(self._dense.load(trainer, pl_module))
        elif dense_file(trainer) is None:
            raise ValueError(
                "Distiller has no dense network to learn from: set dense_checkpoint of the masker "
                "to a file that is written before the first mask, or teacher to a checkpoint of "
                "the dense network"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the layers whose features are compared, while the network has all channels."""
        if not self._acts:
            return
        pipeline = Pipeline.of(trainer)
        if not self._dense.is_known and (pipeline.is_cut or pipeline.holds_zeros):
            self._dense.remember(trainer)  # a run that was begun without a Distiller
        if self.features and self._kept is None:
            if pipeline.is_cut:
                raise ValueError(
                    "the resumed run cut channels without a Distiller: which of the dense "
                    "network's features are left is not known. Set features=0, or resume a "
                    "checkpoint from before the cut"
                )
            if self._twin is not None:
                self._dense.check_widths(self._twin.network, pl_module)
            widths = feature_widths(pl_module, pipeline.groups())
            self._kept = {name: torch.arange(width) for name, width in widths.items()}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Inspect the masks again before the epoch's first step."""
        # Not here: maskers that stand behind in the list decide after this hook.
        self._knows_masks = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stand around the training step of this batch."""
        self._step_back()
        if not self._acts:
            return
        pipeline = Pipeline.of(trainer)
        if not self._dense.is_known and (pipeline.is_cut or pipeline.holds_zeros):
            self._dense.remember(trainer)
        if self._loss is None and self._is_due(trainer):
            self._begin(trainer, pl_module)
        if self._loss is not None and not self._knows_masks:
            self._loss.channels = self._channels(trainer, pl_module)
            self._knows_masks = True
        if self._loss is not None or self._layer is None:
            self._module, self._around = pl_module, StepAround(pl_module, self._step)
            if self._loss is None and self._around.on_instance:
                self._step_back()  # compiled: its network is found once it runs eagerly

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Leave the training step as it was."""
        self._step_back()

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Note which channels of the dense network are left."""
        self._knows_masks = False
        if self._kept is not None:
            widths = {name: len(index) for name, index in self._kept.items()}
            kept = kept_channels(widths, pruned.groups, pruned.plan)
            self._kept = {name: index[kept[name]] for name, index in self._kept.items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where there was nothing to distil."""
        self._step_back()
        if self._acts and trains(trainer) and self._start_epoch is None and not trainer.interrupted:
            when = "masked" if self.start == "mask" else "cut"
            rank_zero_warn(
                f"Distiller has no effect: training ended before anything was {when}; see the "
                "warnings of the maskers, train for more epochs, or leave the callback out"
            )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the training step as it was."""
        self._step_back()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Drop the dense network."""
        self._let_go()

    def state_dict(self) -> dict[str, Any]:
        """Return which dense network this run learns from, since when, and what is left of it."""
        return {
            "digest": self._dense.digest,
            "path": self._dense.path,
            "start_epoch": self._start_epoch,
            "kept": None if self._kept is None else dict(self._kept),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._dense.digest, self._dense.path = state_dict["digest"], state_dict["path"]
        self._start_epoch = state_dict["start_epoch"]
        kept = state_dict["kept"]
        self._kept = None if kept is None else {name: index.cpu() for name, index in kept.items()}

    # --- the training step ------------------------------------------------------------------

    def _step(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a training step, and add the second loss once it is due."""
        module = self._module
        assert module is not None
        with self._context():
            if self._loss is None:
                # Long before the first mask: a module that cannot be compared is refused now.
                with outer_calls(module) as calls:
                    output = step(*args, **kwargs)
                if output is not None:
                    self._layer = main_call(module, calls).layer
                return output
            with self._loss.recording():
                output = step(*args, **kwargs)
            if output is None:
                return None
            batch = args[0] if args else next(iter(kwargs.values()))
            second = self._loss(batch)
        images = max(1, batch_length(batch))
        module.log("distill/loss", second.detach(), on_step=False, on_epoch=True, batch_size=images)
        return with_loss(output, second * images if getattr(module, "sums_loss", False) else second)

    def _context(self) -> AbstractContextManager[None]:
        """Return the context of a step: compiled steps call no hooks."""
        compiled = self._around is not None and self._around.on_instance
        return eager() if compiled else nullcontext()

    def _step_back(self) -> None:
        if self._around is not None:
            self._around.take_back()
        self._around, self._module = None, None

    # --- the dense network ------------------------------------------------------------------

    @property
    def _acts(self) -> bool:
        return bool(self.outputs or self.features)

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        twin = self._twin or DenseTwin(self._dense.load(trainer, pl_module))
        self._loss = SecondLoss(
            pl_module, twin, self._layer, self.outputs, self.features, self.temperature
        )
        if self._start_epoch is None:
            self._start_epoch = trainer.current_epoch
            rank_zero_info(
                f"Epoch {trainer.current_epoch + 1}: the dense network is learnt from as well "
                f"({self._dense.path})."
            )

    def _is_due(self, trainer: pl.Trainer) -> bool:
        pipeline = Pipeline.of(trainer)
        return pipeline.is_cut or (self.start == "mask" and pipeline.holds_zeros)

    def _channels(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return which channels of each layer are compared with which of the dense one."""
        pipeline, kept = Pipeline.of(trainer), self._kept or {}
        widths = {name: len(index) for name, index in kept.items()}
        plan = pipeline.plan
        if plan:
            own = kept_channels(widths, pipeline.groups(), plan)
        else:
            own = {name: torch.arange(width) for name, width in widths.items()}
        device = pl_module.device
        return {n: (own[n].to(device), index[own[n]].to(device)) for n, index in kept.items()}

    def _let_go(self) -> None:
        self._step_back()
        self._twin = self._loss = self._layer = None
        self._knows_masks = False
