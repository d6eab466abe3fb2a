import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.functional.widths import faster_widths as module
from lightning_prune.functional.widths.faster_widths import faster_widths


def macs(widths):
    """A chain with 3 inputs and 5 outputs: every layer costs its width times the one before."""
    ends = np.full((len(widths), 1), 3.0), np.full((len(widths), 1), 5.0)
    before, after = np.hstack([ends[0], widths]), np.hstack([widths, ends[1]])
    return (before * after).sum(1)


def time(widths):
    return macs(np.ceil(widths / 16) * 16) + 7 * widths[:, 0]


chains = st.lists(
    st.tuples(
        st.lists(st.integers(1, 12).map(lambda n: 8 * n), min_size=1, max_size=4, unique=True),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)


@given(chains, st.floats(0, 0.3), st.floats(0, 0.3))
def test_no_move_of_one_or_two_layers_saves_more(layers, below, above):
    choices = [widths for widths, _ in layers]
    start = [widths[place % len(widths)] for widths, place in layers]
    spent = float(macs(np.array([start], dtype=float))[0])
    low, high = spent * (1 - below), spent * (1 + above)
    found = faster_widths(start, choices, time, macs, low, high)

    def took(widths):
        return float(time(np.array([widths], dtype=float))[0])

    def fits(widths):
        return low <= float(macs(np.array([widths], dtype=float))[0]) <= high

    assert all(width in allowed for width, allowed in zip(found, choices, strict=True))
    assert fits(found)
    assert took(found) <= took(start)
    # Every choice of all layers that differs in one or two is among these.
    ordered = [sorted(allowed) for allowed in choices]
    for other in itertools.product(*choices):
        moved = [i for i in range(len(found)) if other[i] != found[i]]
        ways = [abs(ordered[i].index(other[i]) - ordered[i].index(found[i])) for i in moved]
        if any(way not in (1, 2, 4) for way in ways):
            continue
        # A pair is only tried where the sum of what both save alone is a gain.
        alone = sum(took(found) - took([*found[:i], other[i], *found[i + 1 :]]) for i in moved)
        if len(moved) == 1 or (len(moved) == 2 and alone > 1e-6 * took(found)):
            assert not fits(other) or took(other) >= took(found) * (1 - 2e-9)


def test_a_pair_is_found_beyond_the_first_thousands(monkeypatch):
    start, choices = [40, 24, 56, 40], [[32, 40, 48], [16, 24, 32], [48, 56, 64], [32, 40, 48]]
    whole = faster_widths(start, choices, time, macs, 4000, 5000)
    assert time(np.array([whole], float)) < time(np.array([start], float))
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    few = faster_widths(start, choices, time, macs, 4000, 5000)
    assert 4000 <= macs(np.array([few], float))[0] <= 5000
    assert time(np.array([few], float)) < time(np.array([start], float))


def test_nothing_to_choose_from():
    assert faster_widths([], [], lambda w: w.sum(1), lambda w: w.sum(1), 0, 0) == []
    assert faster_widths([8], [[8]], time, macs, 0, 100) == [8]


def test_widths_outside_the_limits_are_refused():
    with pytest.raises(ValueError, match=r"cost 64.0, which is outside \[70, 80\]"):
        faster_widths([8], [[8, 16]], time, macs, 70, 80)
