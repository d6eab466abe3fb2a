import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.observe.usage_counter import UsageCounter, usage_stats


def test_counts_passes():
    counter = UsageCounter(3, threshold=0.5)
    for values in ([1.0, 0.4, 0.0], [0.0, 0.4, 0.6], [1.0, 0.4, -0.6]):
        counter.update(torch.tensor([values, values]))
    assert counter.counts.tolist() == [2, 0, 2]
    assert counter.counts.dtype == torch.int64
    assert (counter.forwards, counter.channels) == (3, 3)


def test_an_empty_batch_is_no_pass():
    counter = UsageCounter(3)
    counter.update(torch.zeros(0, 3, 4, 4))
    assert counter.forwards == 0


def test_dimension_and_activation():
    counter = UsageCounter(4)
    x = torch.ones(2, 5, 4)
    x[..., 1] = -1
    counter.update(x, 2, F.relu)
    assert counter.counts.tolist() == [1, 0, 1, 1]


def test_clear_keeps_the_tensor():
    """What was handed out stays the counts."""
    counter = UsageCounter(2)
    counts = counter.counts
    counter.update(torch.ones(1, 2))
    counter.clear()
    counter.update(torch.ones(1, 2))
    assert counter.counts is counts
    assert (counts.tolist(), counter.forwards) == ([1, 1], 1)


def test_keep_follows_a_cut():
    counter = UsageCounter(4)
    counter.counts = torch.tensor([4, 3, 2, 1])
    counter.forwards = 4
    counter.keep(torch.tensor([0, 3]))
    counter.update(torch.ones(1, 2))
    assert (counter.counts.tolist(), counter.forwards, counter.channels) == ([5, 2], 5, 2)


def test_copies_count_for_themselves():
    counter = UsageCounter(2)
    other = copy.deepcopy(counter)
    other.update(torch.ones(1, 2))
    assert counter.counts.tolist() == [0, 0]
    assert other.counts.tolist() == [1, 1]


def test_no_gradient_and_no_graph():
    layer = nn.Linear(2, 3)
    counter = UsageCounter(3)
    y = layer(torch.ones(1, 2))
    counter.update(y)
    assert not counter.counts.requires_grad
    y.sum().backward()
    assert layer.weight.grad is not None


def test_counts_move_to_where_the_output_is():
    """Meta tensors stand for another device: the counts follow, and nothing is read back."""
    counter = UsageCounter(3)
    counter.update(torch.ones(2, 3, 4, 4, device="meta"))
    assert counter.counts.device.type == "meta"


def test_stats_are_those_of_the_guide():
    stats = usage_stats(torch.tensor([3, 0, 1, 0]))
    count = stats.pop("usage_count")
    assert count.tolist() == [3, 0, 1, 0]
    assert stats == {
        "total_channels": 4,
        "used_channels": 2,
        "usage_ratio": 0.5,
        "used_channel_indices": [0, 2],
    }


def test_the_counts_in_the_stats_are_a_copy():
    counter = UsageCounter(2)
    stats = counter.stats()
    counter.update(torch.ones(1, 2))
    assert stats["usage_count"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("masked", "expected"),
    [((), (4, 2, [0, 2])), ((1,), (3, 2, [0, 2])), ((0, 1), (2, 1, [2])), (range(4), (0, 0, []))],
)
def test_masked_channels_are_neither(masked, expected):
    stats = usage_stats(torch.tensor([3, 0, 1, 0]), masked)
    found = (stats["total_channels"], stats["used_channels"], stats["used_channel_indices"])
    assert found == expected
    assert stats["usage_ratio"] == (expected[1] / expected[0] if expected[0] else 0.0)
