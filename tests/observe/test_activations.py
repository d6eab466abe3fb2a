import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.observe import activations
from lightning_prune.observe.activations import (
    ObjectActivations,
    collect_activations,
    merge_activations,
)
from lightning_prune.observe.background import add_background
from lightning_prune.observe.classifier import classifier_objects, classifier_samples
from tests.networks import Chain, Residual, make
from tests.observe.models import (
    Detector,
    InPlace,
    assert_moments,
    detector_batches,
    forward,
    gathered,
    objects_of,
    samples_of,
)

LAYERS = ("stem.0", "down", "deep.0", "head")
READ = pytest.mark.parametrize("known", [objects_of, None], ids=["read at once", "kept maps"])


def collect(model, batches, layers, known=objects_of, **options):
    return collect_activations(
        model, batches, layers, samples_of, forward, objects_of=known, warn=False, **options
    )


@READ
@pytest.mark.parametrize("matching", ["detected", "all"])
def test_moments_are_those_of_all_activations_in_a_list(known, matching):
    model, batches = make(Detector), detector_batches()
    found = collect(model, batches, LAYERS, known, matching=matching)
    assert found.widths == (8, 12, 16, 5)
    for layer in LAYERS:
        assert_moments(found.of(layer), gathered(model, batches, layer, matching))
    assert found.objects == sum(len(samples.label) for _, samples in batches)
    assert found.matched == sum(int(samples.correct.sum()) for _, samples in batches)


@pytest.mark.parametrize("network", [Residual, Chain])
@pytest.mark.parametrize("known", [classifier_objects, None], ids=["read at once", "kept maps"])
def test_classifier_takes_spatial_means_of_images_it_got_right(network, known):
    model = make(network)
    layers = ("a1.0", "project.0", "head") if network is Residual else ("conv2", "linear")
    torch.manual_seed(1)
    inputs = [torch.randn(9, 3, 8, 8) for _ in range(4)]
    with torch.no_grad():
        # Two of three images are what the model says they are.
        answers = [model.eval()(x).argmax(1) for x in inputs]
        batches = [
            (x, y + (torch.arange(9) % 3 == 0)) for x, y in zip(inputs, answers, strict=True)
        ]
        judged = [(x, classifier_samples((x, y), model.eval()(x))) for x, y in batches]
    found = collect_activations(
        model, batches, layers, classifier_samples, forward, objects_of=known, warn=False
    )
    assert 0 < found.matched < found.objects == 36
    for layer in layers:
        assert_moments(found.of(layer), gathered(model, judged, layer))


@READ
def test_a_layer_called_twice_gives_both_calls(known):
    model, batches = make(Detector), detector_batches()
    found = collect(model, batches, ["shared"], known)
    assert_moments(found.of("shared"), gathered(model, batches, "shared"))
    both = collect(model, batches, ["stem.0", "shared"], known)
    assert_moments(both.of("shared"), gathered(model, batches, "shared"))
    # The layer beside it is counted as often, which changes none of its statistics.
    assert_moments(both.of("stem.0"), gathered(model, batches, "stem.0"), repeats=2)


@READ
@pytest.mark.parametrize("layer", ["first", "second"])
def test_outputs_that_are_overwritten_in_place_are_read_as_they_were(known, layer):
    model, batches = make(InPlace), detector_batches()
    found = collect(model, batches, [layer], known)
    assert_moments(found.of(layer), gathered(model, batches, layer))
    assert found.of(layer).mean.min() < 0


@READ
@pytest.mark.parametrize("pending", [1, 200, 1 << 22])
def test_any_number_of_vectors_may_wait_for_the_merge(known, pending, monkeypatch):
    monkeypatch.setattr(activations, "_PENDING", pending)
    model, batches = make(Detector), detector_batches(6)
    found = collect(model, batches, LAYERS, known)
    for layer in LAYERS:
        assert_moments(found.of(layer), gathered(model, batches, layer))


@READ
def test_order_and_size_of_batches_do_not_matter(known):
    model, batches = make(Detector), detector_batches()
    one = (
        torch.cat([images for images, _ in batches]),
        ObjectSamples(
            *(
                torch.cat([v + 3 * i if n == 0 else v for i, v in enumerate(values)])
                for n, values in enumerate(zip(*(s for _, s in batches), strict=True))
            )
        ),
    )
    together, apart = (collect(model, b, LAYERS, known) for b in ([one], batches[::-1]))
    for name in ("count", "mean", "variance", "mean_abs"):
        torch.testing.assert_close(
            getattr(together.moments, name), getattr(apart.moments, name), rtol=1e-6, atol=1e-9
        )


@READ
def test_background_is_one_more_class_drawn_alike(known):
    model, batches = make(Detector), detector_batches()
    found = collect(model, batches, LAYERS, known, background=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    more = [(images, add_background(samples, 3, generator)) for images, samples in batches]
    for layer in LAYERS:
        assert_moments(found.of(layer), gathered(model, more, layer))
    others = collect(model, batches, LAYERS, known, background=3, seed=6)
    assert torch.equal(others.moments.mean[:, :3], found.moments.mean[:, :3])
    assert not torch.equal(others.moments.mean[:, 3], found.moments.mean[:, 3])


@READ
def test_model_and_random_states_are_left_alone(known):
    model, batches = make(Detector), detector_batches()
    model.train()
    model.deep.eval()
    model.down.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    def noisy(net, batch):
        torch.rand(1), np.random.rand(), random.random()
        return net(batch[0])

    found = collect_activations(
        model, batches, LAYERS, samples_of, noisy, objects_of=known, background=3, warn=False
    )
    assert found.matched
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not model.down.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert not any(module._forward_hooks for module in model.modules())


def test_dropout_is_off_and_the_same_pass_gives_the_same_moments():
    model, batches = make(Detector).train(), detector_batches()
    first, second = (collect(model, batches, ["head"]) for _ in range(2))
    assert torch.equal(first.moments.mean, second.moments.mean)


def test_merged_parts_equal_one_pass():
    model, batches = make(Detector), detector_batches(6)
    parts = [collect(model, batches[i::2], LAYERS) for i in (0, 1)]
    nothing = collect(model, [], LAYERS)
    merged = merge_activations([nothing, *parts])
    whole = collect(model, batches, LAYERS)
    assert (merged.objects, merged.matched, merged.widths) == (
        whole.objects, whole.matched, whole.widths
    )  # fmt: skip
    torch.testing.assert_close(merged.moments.mean, whole.moments.mean, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="same layers"):
        merge_activations([whole, collect(model, [], ["head"])])


def test_channels_last_input_gives_the_same():
    model, batches = make(Detector), detector_batches()
    other = [(x.to(memory_format=torch.channels_last), s) for x, s in batches]
    one, two = (collect(model, b, LAYERS).moments for b in (batches, other))
    torch.testing.assert_close(one.mean, two.mean, rtol=1e-5, atol=1e-6)


def test_low_precision_outputs_are_summed_in_float64():
    model, batches = make(Detector), detector_batches()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = collect(model, batches, ["stem.0", "head"])
    exact = collect(model, batches, ["stem.0", "head"])
    assert found.moments.mean.dtype == torch.float64
    torch.testing.assert_close(found.moments.mean, exact.moments.mean, rtol=0.05, atol=0.05)


def test_no_object_at_all_warns_and_has_no_moments():
    model = make(Detector)
    batches = [(x, s._replace(correct=s.correct & False)) for x, s in detector_batches()]
    with pytest.warns(UserWarning, match="none of 23 objects was matched"):
        found = collect_activations(model, batches, LAYERS, samples_of, forward)
    assert found.moments is None
    assert found.of("head") is None


def test_rare_classes_are_named():
    model, batches = make(Detector), detector_batches(2)
    counts = np.bincount(batches[0][1].label[batches[0][1].correct], minlength=3)
    with pytest.warns(UserWarning, match=f"fewer than 10 matched objects: 0 .{counts[0]}."):
        collect_activations(model, batches, LAYERS, samples_of, forward)


def test_unknown_layer_and_layer_that_does_not_run():
    model = make(Detector)
    with pytest.raises(KeyError, match="no layer 'nowhere'"):
        collect(model, detector_batches(), ["nowhere"])
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' did not run"):
        collect(model, detector_batches(), ["head", "unused"])
    assert not any(module._forward_hooks for module in model.modules())


def test_objects_and_verdicts_must_agree():
    model, batches = make(Detector), detector_batches()

    def reversed_order(batch):
        return ObjectSamples(*(value.flip(0) for value in batch[1]))

    with pytest.raises(ValueError, match="same objects in the same order"):
        collect(model, batches, LAYERS, reversed_order)


def test_watch_and_update_by_hand():
    model, batches = make(Detector).eval(), detector_batches(1)
    found = ObjectActivations(("head",))
    with torch.inference_mode(), found.watch(model):
        model(batches[0][0])
        found.update(batches[0][1], "all")
    assert_moments(found.of("head"), gathered(model, batches, "head", "all"))


def test_random_labels_deal_out_the_same_objects_in_classes_of_the_same_size():
    """Oracle: the moments of all objects together do not know of any labels."""
    model, batches = make(Detector), detector_batches()
    plain = collect(model, batches, LAYERS, matching="all")
    found = collect(model, batches, LAYERS, matching="all", shuffles=3, seed=5)
    assert plain.shuffled_of("down") == []
    for layer in LAYERS:
        own, dealt = found.of(layer), found.shuffled_of(layer)
        assert torch.equal(own.mean, plain.of(layer).mean)
        assert len(dealt) == 3
        share = own.count / own.count.sum()
        for other in dealt:
            assert torch.equal(other.count, own.count)
            torch.testing.assert_close(other.mean @ share, own.mean @ share)
            second = [(m.variance + m.mean.square()) @ share for m in (own, other)]
            torch.testing.assert_close(*second)
            assert not torch.allclose(other.mean, own.mean)
        assert not torch.allclose(dealt[0].mean, dealt[1].mean)
    again = collect(model, batches, LAYERS, matching="all", shuffles=3, seed=5)
    assert torch.equal(again.shuffled_of("head")[2].mean, found.shuffled_of("head")[2].mean)
    merged = merge_activations([found, again])
    assert torch.equal(merged.shuffled_of("head")[0].count, 2 * found.of("head").count)
