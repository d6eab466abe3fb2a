import random

import numpy as np
import pytest
import torch

from lightning_prune.functional.random_states import random_states, restore_random_states


def draw() -> tuple[float, float, float, float]:
    # Gaussians come in pairs: the second half of one is part of the state.
    return (
        float(torch.randn(1)), random.gauss(0, 1), float(np.random.randn()), float(torch.rand(1))
    )  # fmt: skip


def test_the_same_numbers_come_again() -> None:
    draw()
    states = random_states()
    first, second = draw(), draw()
    random.seed(5)
    restore_random_states(states)
    assert (draw(), draw()) == (first, second)
    restore_random_states(states)
    assert draw() == first


def test_the_states_are_plain_data(tmp_path) -> None:
    torch.save(random_states(), tmp_path / "states.pt")
    expected = draw()
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_state_of_a_gpu() -> None:
    device = torch.device("cuda")
    states = random_states(device)
    first = torch.rand(3, device=device)
    restore_random_states(states, device)
    assert torch.equal(torch.rand(3, device=device), first)
