import numpy as np
import pytest
import torch

from lightning_prune.report.norm_history import NormHistory


def test_shares_and_means_are_those_of_numpy():
    generator = torch.Generator().manual_seed(0)
    norms = {name: torch.rand(4, c, generator=generator) for name, c in (("a", 5), ("b", 11))}
    history = NormHistory((0, 2, 3, 7), norms)
    assert (len(history), history.channels) == (4, 16)
    for place in range(4):
        rows = [n[place].numpy() for n in norms.values()]
        low = np.concatenate([row < np.float32(0.4) * row.max() for row in rows])
        assert history.low_fraction(0.4)[place] == pytest.approx(low.mean())
        assert history.mean_norm()[place] == pytest.approx(np.concatenate(rows).mean())
    assert history.low(0.4)["b"].shape == (4, 11)


@pytest.mark.parametrize("epochs", [(), (1, 1), (2, 1)])
def test_epochs_must_rise(epochs: tuple[int, ...]):
    with pytest.raises(ValueError, match="at least one, rising and each once"):
        NormHistory(epochs, {"a": torch.ones(len(epochs), 2)})


@pytest.mark.parametrize("norms", [{}, {"a": torch.ones(3, 2)}, {"a": torch.ones(2)}])
def test_norms_must_fit_the_epochs(norms: dict[str, torch.Tensor]):
    with pytest.raises(ValueError, match=r"pass \(E, C\) tensors for E=2 epochs"):
        NormHistory((0, 1), norms)
