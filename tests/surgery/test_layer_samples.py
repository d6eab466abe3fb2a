import math

import torch
from torch import nn

from lightning_prune.surgery.layer_samples import LayerSamples


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1))


def test_the_first_layer_that_gives_something_else_is_named():
    model, x = net(), torch.randn(2, 3, 64, 64)
    samples = LayerSamples(model, {"0"})
    with samples.recording() as before:
        model(x)
    assert [name for name, _ in before] == ["1", "3"]
    assert all(len(values) < 2 * 4096 for _, values in before)
    with samples.recording() as same:
        model(x)
    assert samples.first_difference(same, 1e-6) == (None, 0.0)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    with samples.recording() as again:
        model(x)
    layer, difference = samples.first_difference(again, 1e-6)
    assert layer == "1"
    assert difference > 0.01
    assert samples.first_difference(again, 1e6) == (None, 0.0)
    assert not any(layer._forward_hooks for layer in model)


def test_another_path_or_shape_is_a_difference():
    model, x = net(), torch.randn(2, 3, 8, 8)
    samples = LayerSamples(model, {"0"})
    with samples.recording():
        model(x)
    with samples.recording() as shorter:
        model[1](model[0](x))
    assert samples.first_difference(shorter, 1e-6) == ("3", math.inf)
    with samples.recording() as larger:
        model(torch.randn(3, 3, 8, 8))
    assert samples.first_difference(larger, 1e-6) == ("1", math.inf)
