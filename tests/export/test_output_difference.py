"""The comparison must see what is wrong, whatever ran the converted network."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export.output_difference import output_difference

MODEL = nn.Linear(4, 3)
EXAMPLE = torch.zeros(1, 4)


def off_by(offset: float, seen: list[Tensor]) -> Tensor:
    """The network's output, wrong in one place by so much of its largest value."""
    with torch.no_grad():
        found = MODEL(*seen)
    found[0, 0] += offset * found.abs().max()
    return found


def test_the_worst_batch_counts_as_a_fraction_of_the_largest_value():
    sizes = []

    def run(seen: Sequence[Tensor]) -> list[Tensor]:
        sizes.append(len(seen[0]))
        return [off_by(0.25 if len(seen[0]) == 3 else 0.125, list(seen))]

    assert output_difference(run, MODEL, EXAMPLE) == pytest.approx(0.25, rel=1e-5)
    assert sizes == [1, 3]


def test_both_sides_see_what_16_bits_hold():
    def run(seen: Sequence[Tensor]) -> list[Tensor]:
        assert torch.equal(seen[0], seen[0].half().float())
        return [off_by(0.0, list(seen))]

    assert output_difference(run, MODEL, EXAMPLE, half=True) == 0


def test_what_cannot_be_compared():
    def other(seen: Sequence[Tensor]) -> list[Tensor]:
        return [torch.zeros(1, 2)]

    assert output_difference(other, MODEL, EXAMPLE) == math.inf
    with pytest.raises(ValueError, match="the tree has 0 outputs, the network 1"):
        output_difference(lambda _: [], MODEL, EXAMPLE, name="tree")
