import pytest
import torch

from lightning_prune.observe.usage_counter import UsageCounter
from lightning_prune.observe.used_channels import UsedChannels, set_used


def counter() -> UsageCounter:
    usage = UsageCounter(4)
    for _ in range(3):
        usage.update(torch.tensor([[1.0, 0.0, 2.0, 0.0]]))
    return usage


def test_counts_of_what_stays_used_are_kept():
    usage = counter()
    set_used(usage, [2, 3])
    assert usage.counts.tolist() == [0, 0, 3, 1]
    assert usage.forwards == 3
    set_used(usage, [])
    assert (usage.counts.tolist(), usage.forwards) == ([0, 0, 0, 0], 0)


def test_results_of_operators_change_nothing():
    usage = counter()
    used = UsedChannels(usage)
    for other in (used - {0}, used | {1}, used & {0}, used ^ {0}, used.copy(), set(used)):
        other.add(3)
    assert usage.counts.tolist() == [3, 0, 3, 0]


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"channel 4 is outside 0\.\.3"):
        UsedChannels(counter()).add(4)
