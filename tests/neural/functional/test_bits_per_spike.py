import numpy as np
import pytest
import torch

from lightning_prune.neural.functional.bits_per_spike import (
    SpikeSums,
    bits_per_spike,
    mean_bits_per_spike,
    spike_sums,
)


def reference(rate, spikes, mask):
    """The formula, cell by cell and sample by sample."""
    result = []
    for p, r, m in zip(rate.T, spikes.T, mask.T, strict=True):
        mean = (m * r).sum() / m.sum()
        total = 0.0
        for pt, rt, mt in zip(p, r, m, strict=True):
            gained = (rt * np.log(pt) if rt else 0.0) - pt
            total += mt * (gained - ((rt * np.log(mean) if rt else 0.0) - mean))
        result.append(total / (m * r).sum() / np.log(2))
    return np.array(result)


@pytest.mark.parametrize("case", ["loss0", "loss1"])
@pytest.mark.parametrize(("mask", "name"), [(None, "bps_nomask"), ("dfs", "bps_masked")])
def test_equals_the_golden_vectors(golden_vectors, case, mask, name):
    arrays = np.load(golden_vectors / "11_visioncore.npz")
    rate, spikes = (torch.tensor(arrays[f"{case}|{each}"]) for each in ("rate_pred", "obs"))
    weights = None if mask is None else torch.tensor(arrays[f"{case}|{mask}"])
    found = bits_per_spike(rate, spikes, weights)
    counts = spikes.sum(0) if weights is None else (spikes * weights).sum(0)
    # the reference gives numbers to cells without spikes; here they have no value
    assert torch.equal(found.isnan(), counts == 0)
    expected = torch.tensor(arrays[f"{case}|{name}"], dtype=torch.float64)
    assert torch.allclose(found[counts > 0], expected[counts > 0], atol=1e-5)


def test_equals_the_formula():
    rng = np.random.default_rng(0)
    rate, mask = rng.uniform(0.01, 3, (40, 5)), rng.integers(0, 2, (40, 5)).astype(float)
    spikes = rng.poisson(rate).astype(float)
    found = bits_per_spike(*map(torch.tensor, (rate, spikes, mask)))
    np.testing.assert_allclose(found, reference(rate, spikes, mask), rtol=1e-12)


def test_the_mean_rate_tells_nothing_and_the_true_rate_its_information():
    rng = np.random.default_rng(1)
    rate = np.repeat(np.array([0.1, 1.9])[:, None], 20_000, axis=0)
    spikes = rng.poisson(rate).astype(float)
    mean = np.full_like(spikes, spikes.mean())
    assert bits_per_spike(torch.tensor(mean), torch.tensor(spikes)).item() == pytest.approx(0)
    # mean of x log2 x, x the rate over its mean
    expected = np.mean([x * np.log2(x) for x in (0.1, 1.9)])
    found = bits_per_spike(torch.tensor(rate), torch.tensor(spikes)).item()
    assert found == pytest.approx(expected, abs=0.02)


def test_sums_of_parts_add_up():
    rng = np.random.default_rng(2)
    log_rate, spikes = torch.tensor(rng.normal(size=(30, 4))), torch.tensor(rng.poisson(1, (30, 4)))
    mask = torch.tensor(rng.integers(0, 2, 30).astype(bool))
    parts = [
        spike_sums(log_rate[i : i + 7], spikes[i : i + 7], mask[i : i + 7]) for i in range(0, 30, 7)
    ]
    added = SpikeSums(*(torch.stack(each).sum(0) for each in zip(*parts, strict=True)))
    whole = bits_per_spike(log_rate.exp(), spikes, mask)
    torch.testing.assert_close(added.bits_per_spike(), whole, rtol=1e-12, atol=1e-12)


def test_masked_places_may_hold_anything():
    rate = torch.tensor([[1.0], [torch.nan], [2.0]])
    spikes = torch.tensor([[1.0], [torch.nan], [3.0]])
    mask = torch.tensor([True, False, True])
    assert (
        bits_per_spike(rate, spikes, mask).item() == bits_per_spike(rate[mask], spikes[mask]).item()
    )


def test_edges():
    spikes = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    rate = torch.tensor([[1.0, 0.0, torch.nan], [1.0, 1.0, 1.0]])
    silent, impossible, broken = bits_per_spike(rate, spikes).tolist()
    assert np.isnan(silent)
    assert impossible == -np.inf
    assert broken == -np.inf


def test_mean_clamps_and_leaves_out_cells_without_spikes():
    nan = torch.nan
    sessions = [
        torch.tensor([0.5, -2.0, nan]),
        torch.tensor([nan]),
        torch.tensor([1.0, -torch.inf]),
    ]
    mean, each = mean_bits_per_spike(sessions)
    assert [each[0].item(), each[2].item()] == [0.25, 0.5]
    assert each[1].isnan()
    assert mean.item() == 0.375


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="samples, cells"):
        bits_per_spike(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="one for every row"):
        bits_per_spike(torch.ones(3, 2), torch.ones(3, 2), torch.ones(2))
