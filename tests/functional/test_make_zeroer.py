"""Oracle: ``index_fill_``, position by position."""

import pytest
import torch

from lightning_prune.functional.make_zeroer import make_zeroer

SHAPES = ((7,), (6, 5), (6, 5, 3), (6, 5, 3, 2), (6, 1, 3, 3), (1, 5, 1, 1), (4, 3, 2, 2, 2))
KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def filled(values, removed):
    expected = values.clone()
    for dim, index in removed.items():
        expected.index_fill_(dim, index, 0)
    return expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_and_columns_of_every_shape(shape, kind):
    choices = [{0: torch.tensor([0])}]
    if len(shape) > 1:
        last = torch.tensor([0, shape[1] - 1]).unique()
        choices += [{1: last}, {0: torch.tensor([shape[0] - 1]), 1: last}]
    for removed in choices:
        values = torch.randn(shape).to(kind)
        expected = filled(values, removed)
        fill = make_zeroer(values, removed)
        fill()
        assert torch.equal(values, expected)
        values.add_(1)
        again = filled(values, removed)
        fill()
        assert torch.equal(values, again)


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(6, 5, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(4, 3, 2, 2, 2).to(memory_format=torch.channels_last_3d),
        torch.randn(6, 10)[:, ::2],
        torch.randn(5, 6).t(),
        torch.randn(12)[::2],
    ],
    ids=["channels_last", "channels_last_3d", "strided", "transposed", "strided vector"],
)
def test_memory_in_another_order(values):
    removed = {0: torch.tensor([1, 3])} | ({1: torch.tensor([0, 2])} if values.ndim > 1 else {})
    expected = filled(values, removed)
    make_zeroer(values, removed)()
    assert torch.equal(values, expected)


def test_everything_that_is_not_zero_goes():
    values = torch.tensor([[float("nan"), -0.0, 1.0], [float("inf"), 1e-45, 2.0]])
    make_zeroer(values, {1: torch.tensor([0, 1])})()
    assert values.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    make_zeroer(parameter, {0: torch.tensor([1])})()
    assert parameter.tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_three_dimensions_at_once(dtype):
    values = torch.randn(4, 3, 5, dtype=dtype)
    removed = {0: torch.tensor([1]), 1: torch.tensor([0]), 2: torch.tensor([2, 4])}
    expected = filled(values, removed)
    make_zeroer(values, removed)()
    assert torch.equal(values, expected)
    assert int((values != 0).sum()) == 3 * 2 * 3
