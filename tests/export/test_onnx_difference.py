"""The comparison must see what is wrong, channel by channel."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export.onnx_difference import onnx_difference
from lightning_prune.export.onnx_model import onnx_model

pytest.importorskip("onnxruntime")


class Channels(nn.Module):
    """Two channels of very different size, as boxes in pixels beside scores."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([640.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, None] * self.factor[:, None]


EXAMPLE = torch.zeros(1, 50)


def test_equal_models_do_not_differ():
    model = Channels()
    assert onnx_difference(onnx_model(model, EXAMPLE), model, EXAMPLE) < 1e-6


def test_a_small_channel_counts_as_much_as_a_large_one():
    model = Channels()
    content = onnx_model(model, EXAMPLE)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.factor[1] = 0.4
    assert onnx_difference(content, other, EXAMPLE) == pytest.approx(0.25, rel=1e-5)


def test_noise_is_seeded():
    model = nn.Linear(50, 3)
    content = onnx_model(model, EXAMPLE)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.weight[0, 0] += 0.1
    first, again, else_where = (onnx_difference(content, other, EXAMPLE, seed=s) for s in (0, 0, 5))
    assert first == again != else_where


def test_not_a_number_is_not_agreement():
    model = Channels()
    content = onnx_model(model, EXAMPLE)
    with torch.no_grad():
        model.factor[1] = math.nan
    assert math.isnan(onnx_difference(content, model, EXAMPLE))


def test_other_shapes_differ_infinitely():
    content = onnx_model(nn.Linear(50, 3), EXAMPLE)
    assert onnx_difference(content, nn.Linear(50, 4), EXAMPLE) == math.inf


def test_half_precision_is_compared_with_full():
    model = nn.Linear(50, 3)
    found = onnx_difference(onnx_model(model, EXAMPLE, half=True), model, EXAMPLE)
    assert 1e-6 < found < 1e-2
