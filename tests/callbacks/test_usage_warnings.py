"""Layers that nothing uses are one warning, whatever their number."""

import pytest

from lightning_prune.callbacks._usage_warnings import warn_of_usage


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
