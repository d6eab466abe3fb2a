"""What pruning did, layer by layer, and what it cost and gained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import nn
from tqdm.auto import tqdm

from lightning_prune.annotations import AtLeast
from lightning_prune.callbacks._checkpoint_list import checkpoint_list
from lightning_prune.callbacks._data import class_names, example_input
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.protocol import (
    ClusteringMasker,
    DecidingMasker,
    GroupedMasker,
    ImitatingStage,
    LearningStage,
    Masker,
    MeasuredMasker,
    RecordingMasker,
    SliceHolder,
    UsageTracker,
)
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.logged_metrics import evaluated_metrics
from lightning_prune.export.exported_latency import exported_latency
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.decision_store import write_decision
from lightning_prune.report.figures import can_draw, write_overview, write_selection, write_usage
from lightning_prune.report.history import History
from lightning_prune.report.page.run_page import write_page
from lightning_prune.report.recording import (
    decisions_of,
    record_cut,
    record_decisions,
    record_latency,
    record_metrics,
    record_run,
    record_size,
)
from lightning_prune.report.report_data import (
    DistillationFacts,
    LabelFreeFacts,
    ReportData,
    Side,
    Usage,
    write_report,
)
from lightning_prune.report.summary import summary
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.fit_state import trains
from lightning_prune.surgery.compare import noise_like
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated


class PruningReport(PruningStage):
    """Record what was pruned and why; print ten lines, write ``pruning_report.json`` and a page.

    Parameters, MACs and latency are measured before and after the cut, the two models' latencies
    in turn. Metrics are those of the last validation before the first mask and of the last one of
    the run, all that the module logs in it; more can be added with ``add_metrics``.
    Epoch by epoch it keeps metrics, learning rate and MACs, and in ``report_data/`` the numbers
    that each choice of channels rests on. ``checkpoints`` says of every file that callbacks have
    written, and that is there, whether it holds the dense, the masked or the cut model, from which
    epoch, and why it was written.

    Args:
        folder: Where ``pruning_report.json`` is written when training ends; None: the Trainer's
            ``default_root_dir``.
        latency_rounds: Forward passes per model in the latency measurement; 0: not measured.
        latency_runtime: ``auto``: in ONNX Runtime where it is installed and the models are on the
            CPU, else in PyTorch; ``pytorch``.
        show: Print ten lines when training ends.
        figures: Draw ``figures/<group>.png`` when a group's channels are chosen, and
            ``figures/overview.png`` and ``figures/usage.png`` whenever the report is written.
        page: Write ``report.html``, one file to look at, whenever the report is written.

    Attributes:
        content: What is known so far.

    Raises:
        ValueError: a negative number of rounds.
    """

    @validated
    def __init__(
        self,
        folder: str | None = None,
        latency_rounds: Annotated[int, AtLeast(0, "0: not measured")] = 11,
        latency_runtime: Literal["auto", "pytorch"] = "auto",
        show: bool = True,
        figures: bool = True,
        page: bool = True,
    ) -> None:
        self.folder = folder
        self.latency_rounds = latency_rounds
        self.latency_runtime = latency_runtime
        self.show = show
        self.figures = figures
        self.page = page
        self._written: Path | None = None
        self._figures_done: set[str] = set()
        self._stored: dict[str, tuple[DecisionRecord, dict[str, Any]]] = {}
        self.content = ReportData()
        self._validated: dict[str, float] = {}

    def add_metrics(self, side: Side, metrics: Mapping[str, float]) -> None:
        """Add metrics of the dense or the pruned model, such as those of a test.

        NaN and infinity are left out: JSON does not know them.
        """
        record_metrics(self.content.of(side), metrics)

    def write(self, folder: str | Path) -> Path:
        """Write ``pruning_report.json``, overview and page into a folder; return the first's path.

        Each file is written whole or not at all.
        """
        figures = Path(folder) / "figures"
        if self._draws and self.content.layers:
            write_overview(figures, self.content)
        if self._draws and self.content.usage is not None:
            write_usage(figures, self.content.usage)
        path = write_report(Path(folder), self.content)
        self._written = Path(folder)
        if self.page:
            try:
                write_page(Path(folder))
            except Exception as error:  # days of training must not end with a page
                rank_zero_warn(
                    f"report.html could not be drawn ({type(error).__name__}: {error}): "
                    f"python -m lightning_prune report {folder} tries again"
                )
        return path

    @rank_zero_only
    def print(self) -> None:
        """Print what pruning did in ten lines; the tables: ``python -m lightning_prune report``."""
        for line in summary(self.content, self._written):
            print(line, flush=True)

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Warn where figures are asked for that cannot be drawn."""
        super().setup(trainer, pl_module, stage)
        if self.figures and not self._draws:
            rank_zero_warn(
                "PruningReport draws no figures without matplotlib: pip install "
                "'lightning-prune[report]', or pass figures=False"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the dense model, unless a resumed run has done so."""
        record_run(self.content, pl_module, pl_module.device)
        self.content.classes = class_names(trainer, pl_module)
        if self.content.dense.macs is None:
            record_size(self.content.dense, pl_module, example_input(trainer, pl_module))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last metrics of the dense model when the first mask appears."""
        if self.content.first_mask_epoch is None and Pipeline.of(trainer).holds_zeros:
            self.content.first_mask_epoch = trainer.current_epoch
        pipeline = Pipeline.of(trainer)
        for masker in pipeline.maskers:
            groups = masker.groups if isinstance(masker, GroupedMasker) else None
            if groups is None and masker.plan:
                groups = pipeline.groups()
            if groups is not None:  # after the cut decisions stay, of groups that are no more
                self._record(_decisions(masker), groups, pl_module)
                self._keep(trainer, masker)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Measure the cut model beside the dense one."""
        example = noise_like(example_input(trainer, pl_module))
        masked = pl_module if pruned.masked is None else pruned.masked
        for masker in Pipeline.of(trainer).maskers:
            # A masker whose masks and cut fall on one epoch is seen here for the first time.
            if isinstance(masker, DecidingMasker):
                self._record(masker.decisions, pruned.groups, masked)
                self._keep(trainer, masker)
        if not self.content.layers:
            self.add_metrics("dense", self._validated)
        record_cut(self.content, pruned, masked, trainer.current_epoch, trainer.global_step)
        if self.content.first_mask_epoch is None:
            self.content.first_mask_epoch = trainer.current_epoch
        record_size(self.content.pruned, pl_module, example)
        if self.latency_rounds and pruned.masked is not None:
            # The masked copy is as wide as the dense model and computes what the cut one does.
            models = {"dense": masked, "pruned": pl_module}
            known = None
            if self.latency_runtime == "auto":
                known = exported_latency(models, example, self.latency_rounds)
            record_latency(self.content, models, example, self.latency_rounds, known)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch: metrics, learning rate, and the MACs that remain."""
        left = [
            m.macs_fraction for m in Pipeline.of(trainer).maskers if isinstance(m, MeasuredMasker)
        ]
        known = [fraction for fraction in left if fraction is not None]
        fraction = 1.0 if self.content.cut is None else self.content.macs_fraction
        self.content.history = self.content.history or History()
        rate = max((group["lr"] for group in trainer.optimizers[0].param_groups), default=None)
        for callback in callbacks_of(trainer):
            if isinstance(callback, ExactResume):  # it stands behind
                callback.complete_means(trainer)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.content.history.add(trainer.current_epoch, metrics, rate, min(known, default=fraction))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the metrics: Lightning forgets them where a run is resumed."""
        if not trainer.sanity_checking:
            self._validated = evaluated_metrics(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the report, write it and print it."""
        for callback in callbacks_of(trainer):
            if isinstance(callback, SliceHolder):
                self.content.slices.update(callback.slice_share)
            if isinstance(callback, UsageTracker):
                usage = Usage.from_plain(callback.usage_history)
                if usage.epochs and usage.layers:
                    self.content.usage = usage
            if isinstance(callback, LearningStage) and callback.distillation["epoch"] is not None:
                self.content.distillation = DistillationFacts(**callback.distillation)
            if isinstance(callback, ImitatingStage) and callback.label_free is not None:
                self.content.label_free = LabelFreeFacts(**callback.label_free)
        if self.content.is_empty:
            if trains(trainer):
                rank_zero_warn(
                    "PruningReport has no effect: nothing was pruned and no file is written; see "
                    "the warnings of the maskers, train for more epochs, or leave the callback out"
                )
            return
        side = self.content.trained
        if side == "pruned" and self.content.cut is None:
            # Zeros, of slices or of masks that were not cut, leave size and MACs as they are.
            record_size(self.content.pruned, pl_module, example_input(trainer, pl_module))
        self.add_metrics(side, self._validated)
        if side == "pruned":
            self._log_what_is_missing()
        if trainer.is_global_zero:
            folder = self._folder(trainer)
            cut = None if self.content.cut is None else self.content.cut.epoch
            masked = self.content.first_mask_epoch
            self.content.checkpoints = checkpoint_list(trainer, folder, masked, cut)
            self.write(folder)
            if self.show:
                self.print()

    def _log_what_is_missing(self) -> None:
        """Log why dense and pruned model cannot be compared by their metrics."""
        if not self.content.pruned.metrics:
            rank_zero_info(
                "PruningReport compares no metrics: no validation logged a finite one (self.log in "
                "validation_step); add those of a test with add_metrics"
            )
        elif not self.content.dense.metrics:
            rank_zero_info(
                "PruningReport has no metrics of the dense model: no validation came before the "
                "first mask; let masks begin an epoch later, or add them with add_metrics"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the report as far as it is known."""
        return {"content": self.content.to_plain(), "validated": dict(self._validated)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the report of a resumed run."""
        self.content = ReportData.from_plain(state_dict["content"])
        self._validated = dict(state_dict["validated"])

    def _forget_run(self) -> None:
        self._figures_done, self._stored = set(), {}

    def _record(
        self, decisions: Sequence[GroupDecision], groups: ChannelGroups, model: nn.Module
    ) -> None:
        """Record the decisions, and the dense model's metrics when the first mask appears."""
        if decisions and not self.content.layers:
            self.add_metrics("dense", self._validated)
        record_decisions(self.content, decisions, groups, model)
        self.content.refused |= groups.refused

    def _keep(self, trainer: pl.Trainer, masker: Masker) -> None:
        """Store and draw what was decided since the last call."""
        if trainer.is_global_zero and isinstance(masker, RecordingMasker):
            for decision in masker.decisions:
                record = masker.records.get(decision.group)
                if record is None:
                    continue
                facts = decision.state_dict() | {"keep": decision.keep.tolist()}
                last = self._stored.get(decision.group)
                if last is None or last[0] is not record or last[1] != facts:
                    write_decision(self._folder(trainer), decision, record, self.content.classes)
                    self._stored[decision.group] = record, facts
        self._draw(trainer, masker)

    def _draw(self, trainer: pl.Trainer, masker: Masker) -> None:
        """Draw the groups whose channels were chosen since the last call."""
        if not (self._draws and trainer.is_global_zero and isinstance(masker, ClusteringMasker)):
            return
        waiting = masker.clusterings.keys() - self._figures_done
        new = [decision for decision in masker.decisions if decision.group in waiting]
        for decision in tqdm(new, "Drawing", leave=False, disable=not new):
            clustering = masker.clusterings[decision.group]
            write_selection(self._folder(trainer) / "figures", clustering, decision)
            self._figures_done.add(decision.group)

    @property
    def _draws(self) -> bool:
        return self.figures and can_draw()

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.folder or trainer.default_root_dir)


def _decisions(masker: Masker) -> Sequence[GroupDecision]:
    """Return a masker's decisions, or what its plan says of them."""
    return masker.decisions if isinstance(masker, DecidingMasker) else decisions_of(masker.plan)
