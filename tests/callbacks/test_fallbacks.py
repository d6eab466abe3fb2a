"""Groups that were decided without activations are one warning, whatever their number."""

import warnings

import pytest
import torch

from lightning_prune.callbacks._fallbacks import warn_of_fallbacks
from lightning_prune.callbacks._usage_warnings import warn_of_usage
from lightning_prune.pruners.sequential import GroupDecision


def decision(name: str, status: str, reason: str) -> GroupDecision:
    return GroupDecision(name, torch.arange(2), 4, None, "upper", status, reason)


def test_one_warning_for_each_reason():
    decisions = [decision(f"layer{n}", "fallback", "no object was matched") for n in range(5)]
    decisions += [decision("other", "fallback", "one class"), decision("fine", "pruned", "")]
    with pytest.warns(UserWarning) as caught:
        warn_of_fallbacks(decisions)
    assert [str(one.message) for one in caught] == [
        "layer0, layer1, layer2 and 2 more: no object was matched",
        "other: one class",
    ]


def test_nothing_is_said_where_nothing_fell_back():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_fallbacks([decision("fine", "pruned", "")])


def test_one_warning_for_all_layers_without_use():
    stats = {f"l{n}": {"used_channels": 0, "total_channels": 8} for n in range(5)}
    stats |= {"full": {"used_channels": 8, "total_channels": 8}}
    with pytest.warns(UserWarning) as caught:
        warn_of_usage(stats, "used", 0.1)
    dead, full = (str(one.message) for one in caught)
    assert dead.startswith("ChannelResetter: no channel of l0, l1, l2 and 2 more layers was used:")
    assert full.startswith("ChannelResetter(which='used') takes all channels of full: every one")
    with pytest.warns(UserWarning) as caught:
        warn_of_usage(stats, "unused", 0.1)
    assert len(caught) == 1
