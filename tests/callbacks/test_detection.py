"""The stages on a detector: object positions, one class, nothing found yet."""

import warnings

import pytest
import torch

from lightning_prune import DetectionModule, DigitsDetectionDataModule
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from tests.callbacks.classifiers import masker, trainer

LAYERS = ["network.backbone.p2.*", "network.head.boxes.*"]

# A few noisy images, a network that has learned nothing, and a box branch that ends the network.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* groups separate the classes no better than labels"),
    pytest.mark.filterwarnings("ignore:.* that cannot be pruned and are left out, beside"),
]


def prune(folder, classes, **options):
    data = DigitsDetectionDataModule(
        image_size=64, train_images=32, val_images=4, batch_size=8, classes=classes
    )
    torch.manual_seed(0)
    model = DetectionModule(num_classes=len(classes), image_size=64, optimizer="adamw", lr=1e-3)
    stage = masker(layers=LAYERS, hold_epochs=0, images=32, **options)
    callbacks = [stage, PhysicalPruner(), OptimizerResetter(), ExponentialMovingAverage()]
    run = trainer(folder, callbacks, 1, limit_train_batches=2, gradient_clip_val=10.0)
    run.fit(model, datamodule=data)
    run.save_checkpoint(folder / "last.ckpt", weights_only=False)
    return stage, model, run


def test_one_class_is_told_apart_from_the_background(tmp_path):
    stage, model, run = prune(tmp_path, [3])
    assert len(stage.decisions) > 5
    assert {decision.status for decision in stage.decisions} == {"pruned"}
    # Two classes, one pair: a single column of separability per producer.
    pairs = {clustering.matrix.shape[1] for clustering in stage.clusterings.values()}
    assert min(pairs) == 1
    assert torch.isfinite(run.callback_metrics["train/loss"])
    loaded = DetectionModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert str(loaded.network) == str(model.network)
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(pictures), model.eval()(pictures))


def test_one_class_without_background_has_nothing_to_tell_apart(tmp_path):
    with pytest.warns(UserWarning, match="channels chosen by weight magnitude at the upper bound"):
        stage, _, _ = prune(tmp_path, [3], background=False)
    assert {decision.status for decision in stage.decisions} == {"fallback"}


def test_a_detector_that_finds_nothing_yet_is_pruned_by_magnitude(tmp_path):
    with pytest.warns(UserWarning) as caught:
        stage, _, _ = prune(tmp_path, [3, 8], matching="detected")
    said = [str(w.message) for w in caught if "was matched by the model" in str(w.message)]
    assert len(said) == 1
    assert {decision.status for decision in stage.decisions} == {"fallback"}
    assert all(len(d.keep) == d.channels // 2 for d in stage.decisions)


def test_background_can_be_one_more_class(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "classes with fewer than 10 matched")
        stage, _, _ = prune(tmp_path, [3, 8], background=True)
    pairs = {clustering.matrix.shape[1] for clustering in stage.clusterings.values()}
    assert min(pairs) == 3
