"""Eliminations against a reference that fits all consumers from scratch for every candidate."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.functional.reconstruction.elimination import Consumer, eliminate


def consumer(
    seed: int, channels: int, taps: int = 1, outputs: int = 3, others: int = 0, rows: int = 300
) -> tuple[Consumer, Tensor, Tensor]:
    """A consumer of correlated channels; the inputs of a channel lie apart, others between them."""
    random = torch.Generator().manual_seed(seed)
    n = channels * taps + others
    mix = torch.randn(n, n, generator=random, dtype=torch.float64)
    x = torch.randn(rows, n, generator=random, dtype=torch.float64) @ mix + 5
    weight = torch.randn(outputs, n, generator=random, dtype=torch.float64)
    blocks = torch.randperm(n, generator=random)[: channels * taps].view(channels, taps)
    centred = x - x.mean(0)
    products = centred.T @ centred / rows
    importance = torch.rand(outputs, generator=random) if seed % 3 == 0 else None
    return Consumer(products, weight, blocks, importance), x, (x @ weight.T)


def unrepaired(one: Consumer, x: Tensor, y: Tensor, gone: list[int]) -> float:
    """The mean squared error that lstsq leaves, with a free constant, from scratch."""
    n = x.shape[1]
    left = sorted(set(range(n)) - set(one.blocks[gone].flatten().tolist()))
    read = np.concatenate([x[:, left].numpy(), np.ones((len(x), 1))], 1)
    solved = np.linalg.lstsq(read, y.numpy(), rcond=None)[0]
    errors = ((y.numpy() - read @ solved) ** 2).mean(0)
    if one.importance is None:
        return errors.sum() / y.numpy().var(0).sum()
    return float((one.importance.double().numpy() * errors).sum())


def reference(found: list[tuple[Consumer, Tensor, Tensor]], channels: int, least: int):
    gone: list[int] = []
    losses = [0.0]
    while channels - len(gone) > least:
        costs = {
            c: sum(unrepaired(*one, [*gone, c]) for one in found)
            for c in range(channels)
            if c not in gone
        }
        gone.append(min(costs, key=costs.__getitem__))
        losses.append(costs[gone[-1]])
    return gone, losses


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("taps", "others"), [(1, 0), (3, 0), (2, 4)])
@pytest.mark.parametrize("consumers", [1, 3])
def test_order_and_losses_are_those_of_fits_from_scratch(seed, taps, others, consumers):
    channels = 6
    found = [consumer(seed * 7 + i, channels, taps, 2 + i, others) for i in range(consumers)]
    widths = range(channels, 0, -1)
    result = eliminate([one for one, _, _ in found], widths, ridge=1e-10, portion=1e-6)
    order, losses = reference(found, channels, 1)
    assert result.order.tolist() == order
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5, atol=1e-8)
    for width in widths:
        assert result.keep(width).tolist() == sorted(set(range(channels)) - set(order[: 6 - width]))


@pytest.mark.parametrize("portion", [0.25, 0.5, 1.0])
def test_losses_of_portions_are_those_of_what_went(portion):
    found = [consumer(seed, 12, 2) for seed in (1, 2)]
    widths = (12, 9, 5, 2)
    result = eliminate([one for one, _, _ in found], widths, ridge=1e-10, portion=portion)
    for width, loss in zip(widths, result.losses, strict=True):
        gone = result.order[: 12 - width].tolist()
        assert loss == pytest.approx(sum(unrepaired(*one, gone) for one in found), rel=1e-5)
    assert len(set(result.order.tolist())) == 10
    assert list(result.losses) == sorted(result.losses)


@pytest.mark.parametrize("stops", [1, 3, 7])
def test_few_stops_measure_some_widths_and_interpolate_the_others(stops):
    one, x, y = consumer(5, 24)
    widths = tuple(range(24, 3, -1))
    result = eliminate([one], widths, ridge=1e-10, portion=1e-6, stops=stops)
    known = [24, *[w for w in widths if w != 24 and (24 - w) % (21 // stops) == 0], 4]
    losses = [unrepaired(one, x, y, result.order[: 24 - width].tolist()) for width in known]
    np.testing.assert_allclose(
        result.losses, np.interp(widths, known[::-1], losses[::-1]), rtol=1e-5, atol=1e-9
    )
    assert sorted(result.order.tolist() + result.keep(4).tolist()) == list(range(24))
    every = eliminate([one], widths, ridge=1e-10, portion=1e-6, stops=20)
    assert (
        every.order.tolist() == eliminate([one], widths, ridge=1e-10, portion=1e-6).order.tolist()
    )


def test_one_after_the_other_is_near_the_best_of_all_choices():
    ratios = []
    for seed in range(10):
        found = [consumer(seed, 7, 1)]
        result = eliminate([found[0][0]], (7, 4), ridge=1e-10, portion=1e-6)
        best = min(
            unrepaired(*found[0], list(gone)) for gone in itertools.combinations(range(7), 3)
        )
        ratios.append(result.losses[1] / best)
    assert min(ratios) > 1 - 1e-6
    assert np.mean(ratios) < 1.3


def test_a_channel_that_repeats_another_and_one_that_is_silent_cost_nothing():
    one, x, _ = consumer(1, 5)
    x[:, one.blocks[3]] = 2 * x[:, one.blocks[1]] + 1
    x[:, one.blocks[0]] = 4.0
    centred = x - x.mean(0)
    same = Consumer(centred.T @ centred / len(x), one.weight, one.blocks)
    result = eliminate([same], (5, 4, 3, 2), ridge=1e-9, portion=1e-6)
    assert set(result.order[:2].tolist()) in ({0, 1}, {0, 3})
    assert result.losses[2] < 1e-6 < 1e-3 < result.losses[3]


def test_nothing_is_read_or_all_is_kept():
    silent = Consumer(torch.zeros(4, 4), torch.zeros(2, 4), torch.arange(4)[:, None])
    result = eliminate([silent], (4, 2))
    assert result.losses == (0.0, 0.0)
    assert result.keep(2).tolist() == [2, 3]
    kept = eliminate([silent], (4,))
    assert kept.keep(4).tolist() == [0, 1, 2, 3]
    assert kept.losses == (0.0,)


def test_readers_are_left_as_they_are():
    one, _, _ = consumer(2, 6)
    products, weight = one.products.clone(), one.weight.clone()
    first = eliminate([one], (6, 3))
    assert torch.equal(one.products, products)
    assert torch.equal(one.weight, weight)
    assert eliminate([one], (6, 3)).losses == first.losses


def test_inputs_that_hardly_vary_around_a_large_mean_can_be_judged():
    """In single precision their centred products have negative eigenvalues."""
    x = 1000 + 1e-3 * torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    mean = x.mean(0)
    products = (x.T @ x / 500 - torch.outer(mean, mean)).double()
    assert torch.linalg.eigvalsh(products).min() < -1e-3
    one = Consumer(products, torch.ones(2, 6), torch.arange(6)[:, None])
    found = eliminate([one], (6, 3))
    assert np.isfinite(found.losses).all()
    assert len(found.keep(3)) == 3
