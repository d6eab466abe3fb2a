"""Forward functions as users write them."""

import functools

import pytest
import torch
from torch import nn

from lightning_prune.loop.forward_pass import as_forward, example_inputs


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b


MODEL = nn.Identity()


@pytest.mark.parametrize(
    ("function", "number", "inputs", "expected"),
    [
        (None, 1, 3, 3),
        (MODEL, 1, 3, 3),
        (MODEL.forward, 1, 3, 3),
        (lambda x: x + 1, 1, 3, 4),
        (lambda x, scale=2: x * scale, 1, 3, 6),
        (lambda model, x: model(x) + 1, 1, 3, 4),
        (lambda *x: sum(x), 1, 3, 3),
        (functools.partial(lambda k, x: k * x, 5), 1, 3, 15),
        (Sum(), 2, [3, 4], 7),
        (Sum().forward, 2, (3, 4), 7),
        (lambda xs: xs[0] - xs[1], 2, [3, 4], -1),
        (lambda model, xs: sum(xs), 3, [3, 4, 5], 12),
        (lambda a, b, c: a + b * c, 3, [3, 4, 5], 23),
        (max, 2, [3, 4], 4),
    ],
)
def test_ways_to_call(function, number, inputs, expected):
    assert as_forward(function, number)(MODEL, inputs) == expected


def test_what_is_no_function():
    with pytest.raises(ValueError, match="forward_fn=3: pass a function"):
        as_forward(3, 1)


def test_inputs():
    model = nn.Linear(3, 1).double()
    one = example_inputs([[2, 3]], "tuple", model)
    assert one.shape == (2, 3)
    assert one.dtype == torch.float64
    assert float(one.std()) > 0
    two = example_inputs([[2, 3], [1]], None, model)
    assert isinstance(two, list)
    assert [tuple(x.shape) for x in two] == [(2, 3), (1,)]
    assert isinstance(example_inputs([[2, 3], [1]], "tuple", model), tuple)
    with torch.device("meta"):
        far = nn.Linear(3, 1)
    assert example_inputs([[1, 3]], None, far).device.type == "meta"
