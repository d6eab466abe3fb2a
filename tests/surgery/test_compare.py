import math

import pytest
import torch

from lightning_prune.surgery.compare import largest_difference

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0.0, 4.0], [1.0, 4.0], 0.25),
        ([0.0, -8.0], [0.0, -8.0], 0.0),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([INF, NAN, 2.0], [INF, NAN, 1.0], 0.5),  # alike where the dense model is not finite
        ([1.0, NAN], [1.0, 1.0], NAN),
        ([1.0, 1.0], [NAN, 1.0], NAN),
        ([INF, 1.0], [-INF, 1.0], NAN),
        ([1.0, 2.0], [1.0, INF], NAN),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_one_output_among_others(before, after, expected, first):
    same = torch.ones(3)
    pairs = [(torch.tensor(before), torch.tensor(after)), (same, same)]
    before, after = zip(*(pairs if first else pairs[::-1]), strict=True)
    found = largest_difference(before, after)
    assert math.isnan(found) if math.isnan(expected) else found == expected


def test_shapes_integers_and_nothing():
    assert largest_difference([torch.ones(2)], [torch.ones(3)]) == INF
    assert largest_difference([torch.tensor([1])], [torch.tensor([2])]) == 0
    assert largest_difference([torch.ones(0)], [torch.ones(0)]) == 0
    assert largest_difference([], []) == 0
