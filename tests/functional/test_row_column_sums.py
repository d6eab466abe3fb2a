import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.functional.row_column_sums import RowColumnSums

SHAPES = [((5, 3, 3, 3), (0, 1)), ((8, 1, 1, 1), (0,)), ((3, 7), (1,)), ((6,), (0,))]
SHAPES += [((4, 2, 5), (0, 1)), ((9, 4, 2, 3, 2), (0, 1)), ((1, 6, 1, 1), (0, 1))]


def tensors(dtype: torch.dtype = torch.float32, channels_last: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).to(dtype) for shape, _ in SHAPES]
    if channels_last:
        made = [t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for t in made]
    return made


def sums_of(weights: list[Tensor]) -> RowColumnSums:
    return RowColumnSums(weights, [dims for _, dims in SHAPES])


def expected_squares(weights: list[Tensor]) -> list[float]:
    """Position by position, in NumPy."""
    found = []
    for weight, (_, dims) in zip(weights, SHAPES, strict=True):
        values = weight.double().numpy() ** 2
        for dim in dims:
            found += [np.take(values, i, dim).sum() for i in range(values.shape[dim])]
    return found


def expected_gradient(weight: Tensor, dims: tuple[int, ...], scale: Tensor) -> np.ndarray:
    found = np.zeros(tuple(weight.shape))
    parts = dict(zip(dims, scale.split([weight.shape[d] for d in dims]), strict=True))
    for place in np.ndindex(*weight.shape):
        found[place] = weight[place] * sum(parts[d][place[d]] for d in dims)
    return found


VARIANTS = [
    pytest.param(torch.float32, False, 1e-6, id="kernel"),
    pytest.param(torch.float32, True, 1e-6, id="kernel-channels-last"),
    pytest.param(torch.float64, False, 1e-12, id="torch"),
    pytest.param(torch.bfloat16, True, 2e-2, id="torch-half"),
]


@pytest.mark.parametrize(("dtype", "channels_last", "tolerance"), VARIANTS)
def test_squares_equal_numpy(dtype: torch.dtype, channels_last: bool, tolerance: float) -> None:
    weights = tensors(dtype, channels_last)
    found = sums_of(weights).squares()
    assert len(sums_of(weights)) == len(found)
    torch.testing.assert_close(
        found.double(), torch.tensor(expected_squares(weights)), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("dtype", "channels_last", "tolerance"), VARIANTS)
def test_added_gradient_equals_a_loop(
    dtype: torch.dtype, channels_last: bool, tolerance: float
) -> None:
    weights = tensors(dtype, channels_last)
    sums = sums_of(weights)
    scale = torch.rand(len(sums), generator=torch.Generator().manual_seed(1))
    grads = [torch.ones_like(weight) for weight in weights]
    sums.add_to([None, *grads[1:]], scale)
    assert bool((grads[0] == 1).all()), "None leaves a gradient out"
    sums.add_to([grads[0], *[None] * (len(grads) - 1)], scale)
    place = 0
    for weight, grad, (_, dims) in zip(weights, grads, SHAPES, strict=True):
        count = sum(weight.shape[d] for d in dims)
        expected = 1 + expected_gradient(weight, dims, scale[place : place + count])
        place += count
        np.testing.assert_allclose(
            grad.double().numpy(), expected, rtol=tolerance, atol=5 * tolerance
        )


@pytest.mark.parametrize("inputs", [3, 8])
def test_gradient_in_another_memory_order(inputs: int) -> None:
    weight = torch.randn(4, inputs, 3, 3).to(memory_format=torch.channels_last)
    scale = torch.rand(4 + inputs)
    grads = [torch.zeros(4, inputs, 3, 3), torch.zeros_like(weight)]
    assert grads[0].stride() != grads[1].stride()
    for grad in grads:
        RowColumnSums([weight], [(0, 1)]).add_to([grad], scale)
    torch.testing.assert_close(grads[0], grads[1])
    rows, columns = scale.split([4, inputs])
    expected = weight * (rows.view(-1, 1, 1, 1) + columns.view(1, -1, 1, 1))
    torch.testing.assert_close(grads[0], expected)


def test_transposed_weight_is_read_by_torch() -> None:
    weight = torch.randn(6, 4).T
    assert RowColumnSums([weight], [(0, 1)])._table is None
    found = RowColumnSums([weight], [(0, 1)]).squares()
    torch.testing.assert_close(found, torch.cat([weight.square().sum(d) for d in (1, 0)]))


def test_sign() -> None:
    grads = [torch.zeros(3), torch.ones(2)]
    RowColumnSums([torch.tensor([2.0, 0.0, -3.0]), torch.ones(2)], [(0,), (0,)]).add_to(
        grads, torch.tensor([1.0, 1.0, 0.5, 0.0, 2.0]), sign=True
    )
    assert [grad.tolist() for grad in grads] == [[1.0, 0.0, -0.5], [1.0, 3.0]]


def test_not_finite_numbers_stay_in_their_rows_and_columns() -> None:
    weight = torch.ones(6, 3)
    weight[5, 2] = torch.nan
    weight[0, 0] = torch.inf
    found = RowColumnSums([weight], [(0, 1)]).squares()
    assert found[5].isnan()
    assert found[8].isnan()
    assert found[0].isinf()
    assert found[1:5].tolist() == [3.0] * 4
    grad = torch.full((6, 3), torch.nan)
    grad[1] = 0
    RowColumnSums([weight], [(0, 1)]).add_to([grad], torch.ones(9))
    assert grad[1].tolist() == [2.0] * 3
    assert bool(grad[2].isnan().all())


def test_nothing_to_do() -> None:
    sums = RowColumnSums([], [])
    assert len(sums) == 0
    assert sums.squares().tolist() == []


@pytest.mark.parametrize("dims", [[], [(2,)], [(1, 0)]])
def test_wrong_dimensions(dims: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"pass \(0,\), \(1,\) or \(0, 1\) for each tensor"):
        RowColumnSums([torch.ones(2, 2, 2)], dims)


def test_complex_weights_count_by_their_magnitude() -> None:
    weight = torch.tensor([[3 + 4j, 0], [0, 1j]])
    sums = RowColumnSums([weight], [(0, 1)])
    assert sums.squares().tolist() == [25.0, 1.0, 25.0, 1.0]
    grad = torch.zeros_like(weight)
    sums.add_to([grad], torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert grad.tolist() == [[3 + 4j, 0], [0, 1j]]
    grad.zero_()
    sums.add_to([grad], torch.tensor([5.0, 0.0, 0.0, 1.0]), sign=True)
    torch.testing.assert_close(grad, torch.tensor([[3 + 4j, 0], [0, 1j]]))
