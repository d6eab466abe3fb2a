import numpy as np
import pytest
import torch

from lightning_prune.neural.functional.normalized_correlation import normalized_correlation


def reference(responses, prediction):
    """Schoppe et al. 2016, equations 6 to 9, with numpy's own variances and covariances."""
    repeats = len(responses)
    total = np.var(responses.sum(0), ddof=1)
    power = (total - np.var(responses, axis=1, ddof=1).sum()) / repeats / (repeats - 1)
    covariance = np.cov(responses.mean(0), prediction)[0, 1]
    return covariance / np.sqrt(np.var(prediction, ddof=1) * power)


@pytest.mark.parametrize("repeats", [2, 9])
def test_equals_numpy(repeats):
    rng = np.random.default_rng(repeats)
    signal = rng.gamma(1.0, 2.0, (300, 4))
    responses = rng.poisson(signal, (repeats, 300, 4)).astype(float)
    prediction = signal + rng.normal(size=signal.shape)
    found = normalized_correlation(torch.tensor(responses), torch.tensor(prediction))
    expected = [reference(responses[:, :, i], prediction[:, i]) for i in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    alone = normalized_correlation(torch.tensor(responses[:, :, 0]), torch.tensor(prediction[:, 0]))
    assert alone.item() == pytest.approx(expected[0])


def test_noise_is_taken_out():
    rng = np.random.default_rng(0)
    signal = rng.gamma(1.0, 1.0, 20_000)
    responses = rng.poisson(signal, (8, 20_000)).astype(float)
    perfect = normalized_correlation(torch.tensor(responses), torch.tensor(3 * signal + 5))
    assert perfect.item() == pytest.approx(1.0, abs=0.01)
    wrong = normalized_correlation(torch.tensor(responses), torch.tensor(-signal))
    assert wrong.item() == pytest.approx(-1.0, abs=0.01)


def test_no_value_without_signal_or_with_a_constant_prediction():
    opposite = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert normalized_correlation(opposite, torch.arange(4.0)).isnan()
    same = torch.arange(4.0).expand(2, 4)
    assert normalized_correlation(same, torch.ones(4)).isnan()
    assert normalized_correlation(same, torch.arange(4.0)).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("responses", "prediction", "words"),
    [
        (torch.ones(3, 5), torch.ones(4), r"\(repeats, T\) and \(T,\)"),
        (torch.ones(5), torch.ones(5), "cells last"),
        (torch.ones(1, 5), torch.ones(5), "at least 2 of each"),
    ],
)
def test_errors(responses, prediction, words):
    with pytest.raises(ValueError, match=words):
        normalized_correlation(responses, prediction)
