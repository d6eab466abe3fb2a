import pytest
import torch

from lightning_prune.functional.penalty import growing_strength


def by_hand(norms: list[float], alpha: float) -> list[float]:
    high, low = max(norms), min(norms)
    return [2 ** (alpha * (high - value) / (high - low)) for value in norms]


@pytest.mark.parametrize("alpha", [0.0, 2.0, 4.0])
def test_groups_do_not_see_one_another(alpha: float) -> None:
    first, second = [0.5, 2.0, 1.0], [10.0, 30.0, 15.0, 11.0]
    group = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    norms = torch.tensor(first + second).double()
    # Interleaved: the channels of a group need not stand together.
    order = torch.tensor([3, 0, 5, 1, 6, 2, 4])
    found = growing_strength(norms[order], alpha, group[order])
    expected = torch.tensor(by_hand(first, alpha) + by_hand(second, alpha)).double()
    torch.testing.assert_close(found, expected[order])


@pytest.mark.parametrize("norms", [[0.0, 0.0], [2.0, 2.0, 2.0], [3.0], [1.0, 1.0 + 1e-8]])
def test_equal_importance_gives_one(norms: list[float]) -> None:
    assert growing_strength(torch.tensor(norms).double()).tolist() == [1.0] * len(norms)


def test_masked_channels_do_not_enter_the_extremes() -> None:
    norms = torch.tensor([0.0, 1.0, 2.0, 3.0, 99.0]).double()
    active = torch.tensor([False, True, True, True, False])
    found = growing_strength(norms, 4.0, active=active)
    torch.testing.assert_close(found, torch.tensor([0.0, 16.0, 4.0, 1.0, 0.0]).double())


def test_one_channel_left() -> None:
    active = torch.tensor([False, True, False])
    assert growing_strength(torch.rand(3), active=active).tolist() == [0.0, 1.0, 0.0]


def test_a_diverged_group_does_not_spread() -> None:
    norms = torch.tensor([torch.nan, 1.0, 1.0, 2.0])
    found = growing_strength(norms, 4.0, torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [1.0, 1.0, 16.0, 1.0]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="one number per channel"):
        growing_strength(torch.ones(2, 2))
    with pytest.raises(ValueError, match="alpha=-1"):
        growing_strength(torch.ones(2), alpha=-1)
