"""Shapes that are answered without PyTorch's decompositions are those that a real pass gives."""

import pytest
import torch
from torch import nn

from lightning_prune.surgery.shapes_only import ShapesOnly

LAYERS = {
    "batch norm": (nn.BatchNorm2d(6), (2, 6, 4, 4)),
    "batch norm without vectors": (nn.BatchNorm1d(6, affine=False), (2, 6, 5)),
    "layer norm": (nn.LayerNorm(6), (2, 5, 6)),
    "layer norm of two axes": (nn.LayerNorm((5, 6)), (2, 5, 6)),
    "layer norm without vectors": (nn.LayerNorm(6, elementwise_affine=False), (2, 6)),
    "silu in place": (nn.SiLU(inplace=True), (2, 6)),
    "gelu": (nn.GELU(approximate="tanh"), (2, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_shape_and_order_in_memory_of_a_real_pass(name):
    layer, shape = LAYERS[name]
    with torch.no_grad():
        real = layer.eval()(torch.rand(shape))
        with ShapesOnly():
            found = layer.to("meta")(torch.empty(shape, device="meta"))
    assert (found.shape, found.stride(), found.dtype) == (real.shape, real.stride(), real.dtype)
    assert found.is_meta


@pytest.mark.parametrize("other", [torch.rand(3, 4), torch.rand(4), torch.rand(3, 4).double(), 2.0])
def test_sums_have_the_shape_and_precision_of_a_real_pass(other):
    x = torch.rand(3, 4)
    moved = other.to("meta") if isinstance(other, torch.Tensor) else other
    with ShapesOnly():
        found = x.to("meta") + moved
    assert (found.shape, found.dtype) == ((x + other).shape, (x + other).dtype)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.BatchNorm2d(6), (2, 5, 4, 4)), (nn.LayerNorm(6), (2, 5)), (nn.LayerNorm((2, 6)), (6,))],
)
def test_widths_that_do_not_fit_are_errors_as_without_it(layer, shape):
    layer, x = layer.eval().to("meta"), torch.empty(shape, device="meta")
    with pytest.raises(RuntimeError) as plain:
        layer(x)
    with pytest.raises(RuntimeError) as spared, ShapesOnly():
        layer(x)
    assert str(spared.value) == str(plain.value)


def test_values_are_computed():
    with ShapesOnly():
        assert torch.relu(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
