"""The pipeline of a Trainer: the event of the cut, and one answer for all stages."""

import lightning.pytorch as pl
import pytest

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.slice_masker import SliceMasker
from tests.callbacks.classifiers import Classifier, trainer
from tests.callbacks.test_protocol import Foreign


def test_the_event_reaches_callbacks_in_their_order_and_then_the_module(tmp_path):
    heard = []

    class Listener(pl.Callback):
        def __init__(self, name):
            self.name = name

        def on_channels_pruned(self, trainer, pl_module, pruned):
            heard.append(self.name)

    class Listening(Classifier):
        def on_channels_pruned(self, trainer, pl_module, pruned):
            heard.append("module")

    class Deaf(pl.Callback):
        on_channels_pruned = None

    callbacks = [Listener("first"), Foreign(), PhysicalPruner(), Deaf(), Listener("second")]
    trainer(tmp_path, callbacks, 4).fit(Listening())
    assert heard == ["first", "second", "module"]


def test_one_trainer_has_one_pipeline(tmp_path):
    first, second = trainer(tmp_path, []), trainer(tmp_path, [])
    assert Pipeline.of(first) is Pipeline.of(first)
    assert Pipeline.of(first) is not Pipeline.of(second)
    assert not Pipeline.of(first).is_masked
    assert not Pipeline.of(first).is_finished
    assert not Pipeline.of(first).plan


def test_a_slice_masker_before_a_channel_masker_follows_the_cut(tmp_path):
    """When the event reaches it, the masker behind it still has the plan of the wide net."""
    slices = SliceMasker(4, 0, 1, pruning_ratio=0.5, layers=["net.inner.0", "net.deep.0"])
    model = Classifier()
    trainer(tmp_path, [slices, Foreign(), PhysicalPruner()], 4).fit(model)
    assert model.net.inner[0].in_channels == 4
    zeros = float((model.net.inner[0].weight == 0).float().mean())
    assert slices.slice_share["net.inner.0"] == pytest.approx(zeros)
