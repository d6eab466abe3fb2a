import pytest
import torch

from lightning_prune.functional.low_channels import low_channels


def test_beside_the_largest() -> None:
    norms = torch.tensor([1.0, 0.2, 0.19, 4.0, 0.0]).double()
    assert low_channels(norms, 0.05).tolist() == [False, False, True, False, True]


def test_scale_does_not_matter() -> None:
    norms = torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(low_channels(norms, 0.3), low_channels(1024 * norms, 0.3))
    assert 0 < int(low_channels(norms, 0.3).sum()) < 50


def test_zeros_are_low() -> None:
    assert low_channels(torch.zeros(3)).tolist() == [True, True, True]


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_wrong_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match=r": pass a number in \(0, 1\), a fraction of the group"):
        low_channels(torch.ones(2), threshold)


def test_wrong_norms() -> None:
    with pytest.raises(ValueError, match="one number per channel"):
        low_channels(torch.ones(0))
