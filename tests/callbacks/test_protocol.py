"""A masker of the user's own, derived from nothing of ours, takes part like the shipped ones."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.callbacks import protocol
from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.mask import ChannelMask
from tests.callbacks.classifiers import EXAMPLE, Classifier, masker, trainer

KEEP = torch.tensor([0, 1, 2, 5])
GONE = [3, 4, 6, 7]


class Foreign(pl.Callback):
    """Holds four of the stem's eight channels at zero in epoch 1, and lets them be cut in 3."""

    def __init__(self):
        self.plan, self.finished, self.mask = PruningPlan(), False, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.plan = PruningPlan({"net.stem.0": KEEP}, {"net.stem.0": 8})
            self.mask = ChannelMask(pl_module, trace_groups(pl_module, EXAMPLE), self.plan)
            self.mask.hold(trainer.optimizers)
        self.finished = trainer.current_epoch >= 3

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.mask.release()
        self.plan = PruningPlan()


class Look(pl.Callback):
    """At the end of each epoch: the rows of the stem, and the columns that read them."""

    def __init__(self):
        self.rows = {}

    def on_train_epoch_end(self, trainer, pl_module):
        net = pl_module.net
        self.rows[trainer.current_epoch] = (
            net.stem[0].weight.detach().clone(),
            net.inner[0].weight.detach().clone(),
        )


def test_it_gets_its_rows_in_the_report(tmp_path):
    report = PruningReport(str(tmp_path), latency_rounds=0, show=False, figures=False)
    model = Classifier()
    trainer(tmp_path, [Foreign(), PhysicalPruner(), report], 4).fit(model)
    assert (model.net.stem[0].out_channels, model.net.inner[0].in_channels) == (4, 4)
    rows = {row.name: row for row in report.content.layers}
    assert list(rows) == ["net.stem.0", "net.outer.0"]
    assert {(r.channels_before, r.channels_after, r.group) for r in rows.values()} == {
        (8, 4, "net.stem.0")
    }
    assert {(r.bound, r.status, r.active_channels) for r in rows.values()} == {
        ("plan", "pruned", 4)
    }
    assert (report.content.first_mask_epoch, report.content.cut.epoch) == (1, 3)
    assert report.content.dense.metrics


class AtOnce(Foreign):
    """Masks in the epoch of the cut: the report sees nothing of it but the event."""

    def on_train_epoch_start(self, trainer, pl_module):
        super().on_train_epoch_start(trainer, pl_module)
        self.finished = trainer.current_epoch == 1


def test_what_is_masked_and_cut_at_once_has_rows_too(tmp_path):
    report = PruningReport(str(tmp_path), latency_rounds=0, show=False, figures=False)
    trainer(tmp_path, [AtOnce(), PhysicalPruner(), report], 2).fit(Classifier())
    assert [(r.name, r.channels_after, r.active_channels) for r in report.content.layers] == [
        ("net.stem.0", 4, 4),
        ("net.outer.0", 4, 4),
    ]


def test_the_resetter_leaves_its_channels_and_the_columns_that_read_them_at_zero(tmp_path):
    resetter = ChannelResetter(1, which="all", layers=["net.stem.0", "net.inner.0"], min_batches=1)
    look, model = Look(), Classifier()
    before = {}

    class After(pl.Callback):
        """Behind the resetter, before any step of the optimizer."""

        def on_train_epoch_start(self, trainer, pl_module):
            weight = pl_module.net.stem[0].weight
            before[trainer.current_epoch] = (
                weight.detach().clone(),
                pl_module.net.inner[0].weight.detach().clone(),
            )

    trainer(tmp_path, [Foreign(), resetter, After(), look], 3).fit(model)
    stem, inner = before[2]
    assert torch.equal(stem[GONE], torch.zeros_like(stem[GONE]))
    assert torch.equal(inner[:, GONE], torch.zeros_like(inner[:, GONE]))
    trained_stem, trained_inner = look.rows[1]
    assert not torch.isclose(stem[KEEP], trained_stem[KEEP]).any(), "the others were reset"
    assert not torch.isclose(inner[:, KEEP], trained_inner[:, KEEP]).all()
    channels = resetter.usage_history["layers"]["net.stem.0"]["channels"]
    assert channels == [8, 4, 4], "masked channels do not count"


def test_slices_do_not_count_its_channels(tmp_path):
    """The stem's 8 filters have 9 weights each: in blocks of 4, two filters apart, 18 slices."""
    slices = SliceMasker(4, 2, 3, pruning_ratio=0.5, layers=["net.inner.0"])
    model = Classifier()
    stages = [Foreign(), slices, SliceRegularizer(layers=["net.inner.0"], block_size=4)]
    run = trainer(tmp_path, stages, 3)
    run.fit(model)
    unmasked = Pipeline.of(run).unmasked_weights()
    assert torch.equal(unmasked["net.inner.0"].any(0).flatten(1).any(1).nonzero().flatten(), KEEP)
    weight = model.net.inner[0].weight
    # 12 filters x 4 columns x 9 places in blocks of 4 are 108 slices: 54 of them are zero, and
    # nothing of them is in the columns that are masked anyway.
    assert int((weight[:, KEEP] == 0).sum()) == 54 * 4
    assert slices.slice_share["net.inner.0"] == pytest.approx(0.5)


def test_the_learning_rate_restarts_at_its_first_mask(tmp_path):
    resetter = OptimizerResetter(restart_at="mask", warmup_epochs=0, decay="linear", final_lr=0.0)
    rates = {}

    class Rates(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rates[trainer.current_epoch] = trainer.optimizers[0].param_groups[0]["lr"]

    trainer(tmp_path, [Foreign(), resetter, PhysicalPruner(), Rates()], 5).fit(Classifier())
    assert rates[0] == 0.05
    assert [round(rates[epoch] / 0.05, 6) for epoch in (1, 2, 3, 4)] == [0.75, 0.5, 0.25, 0.0]


SHIPPED = [
    (masker(), {"Masker", "GroupedMasker", "NormingMasker", "AttentionMasker",
                "DecidingMasker", "RecordingMasker", "MeasuredMasker", "ClusteringMasker",
                "RoundingMasker", "DenseCheckpointWriter", "MaskHolder", "CutWitness",
                "PlannedStage", "EpochStage"}),
    (ChannelMasker(), {"Masker", "GroupedMasker", "NormingMasker", "AttentionMasker",
                "DecidingMasker", "RecordingMasker", "MeasuredMasker",
                "RoundingMasker", "DenseCheckpointWriter", "MaskHolder", "CutWitness",
                "PlannedStage", "EpochStage"}),
    (SliceMasker(), {"SliceHolder", "MaskHolder", "CutWitness", "PlannedStage", "EpochStage"}),
    (ChannelRegularizer(), {"PlannedStage", "EpochStage"}),
    (SliceRegularizer(), {"PlannedStage", "EpochStage"}),
    (ChannelResetter(), {"UsageTracker", "PlannedStage", "EpochStage"}),
    (PruningReport(), set()),
    (OptimizerResetter(), set()),
    (PrunedCheckpoint(), set()),
    (PhysicalPruner(), {"EpochStage"}),
    (Foreign(), {"Masker"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "names"), SHIPPED, ids=[type(stage).__name__ for stage, _ in SHIPPED]
)
def test_what_each_stage_shows_to_the_others(stage, names):
    kinds = {name: kind for name, kind in vars(protocol).items() if is_protocol(kind)}
    found = {name for name, kind in kinds.items() if isinstance(stage, kind)}
    # What cuts is not told of the cut.
    told = set() if isinstance(stage, PhysicalPruner) else {"ChannelsPrunedListener"}
    assert found == names | told


def is_protocol(kind):
    return getattr(kind, "_is_protocol", False) and kind.__module__ == protocol.__name__
