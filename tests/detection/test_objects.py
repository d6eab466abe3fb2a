"""The project's own detector, observed both ways."""

import pytest
import torch
from torch import nn

from lightning_prune.callbacks._data import objects_function, samples_function
from lightning_prune.detection.module import DetectionModule
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.observe.activations import collect_activations
from lightning_prune.observe.classifier import classifier_objects, classifier_samples


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DetectionModule(num_classes=4, image_size=64).eval()


def batch(seed=0, images=3, objects=9):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    targets = {
        "image": torch.randint(0, images, (objects,), generator=generator).sort()[0],
        "label": torch.randint(0, 4, (objects,), generator=generator),
        "box": torch.cat([0.2 + 0.6 * draw(objects, 2), 0.1 + 0.3 * draw(objects, 2)], dim=1),
    }
    return draw(images, 3, 64, 64), targets


def test_positions_are_the_samples_without_the_verdict(model):
    one = batch()
    with torch.no_grad():
        samples = model.object_samples(one, model(one[0]))
    before = model.object_positions(one)
    for name in ObjectSamples._fields:
        if name != "correct":
            assert torch.equal(getattr(before, name), getattr(samples, name))
    assert before.correct.all()
    torch.testing.assert_close(torch.stack(before[3:], dim=1), one[1]["box"], rtol=0, atol=0)


@pytest.mark.parametrize("background", [None, 4])
def test_both_ways_of_reading_every_convolution_agree(model, background):
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "dfl" not in n]
    batches = [batch(seed) for seed in range(3)] + [batch(9, objects=0)]
    both = [
        collect_activations(
            model, batches, layers, samples_function(model), lambda m, b: m(b[0]),
            objects_of=known, matching="all", background=background, warn=False,
        )
        for known in (objects_function(model), None)
    ]  # fmt: skip
    assert both[0].objects == both[1].objects == (27 if background is None else 54)
    for name in ("count", "mean", "variance", "mean_abs"):
        assert torch.equal(getattr(both[0].moments, name), getattr(both[1].moments, name))


def test_who_names_the_objects(model):
    assert objects_function(model) == model.object_positions
    assert samples_function(model) == model.object_samples
    classifier = nn.Linear(2, 2)
    assert objects_function(classifier) is classifier_objects
    assert samples_function(classifier) is classifier_samples
    # A module that only judges: nothing is known before the forward pass.
    classifier.object_samples = classifier_samples
    assert objects_function(classifier) is None
