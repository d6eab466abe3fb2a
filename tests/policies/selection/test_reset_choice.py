import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.policies.selection.reset_choice import reset_choice

COUNTS = torch.tensor([3, 0, 0, 1, 7, 0])


@pytest.mark.parametrize(
    ("which", "masked", "expected"),
    [
        ("unused", (), [1, 2, 5]),
        ("used", (), [0, 3, 4]),
        ("all", (), [0, 1, 2, 3, 4, 5]),
        ("unused", {1, 4}, [2, 5]),
        ("used", {1, 4}, [0, 3]),
        ("all", {1, 4}, [0, 2, 3, 5]),
        ("all", range(6), []),
    ],
)
def test_which(which, masked, expected):
    found = reset_choice(COUNTS, which, masked)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_only_below_a_ratio_of_used_channels():
    """3 of 6 are used; without the masked ones 3 of 5."""
    assert reset_choice(COUNTS, only_below=0.5).tolist() == []
    assert reset_choice(COUNTS, only_below=0.51).tolist() == [1, 2, 5]
    assert reset_choice(COUNTS, masked=[1], only_below=0.6).tolist() == []
    assert reset_choice(COUNTS, masked=[1], only_below=0.61).tolist() == [2, 5]
    assert reset_choice(COUNTS, "all", only_below=1.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert reset_choice(torch.ones(3), "all", only_below=1.0).tolist() == []


@given(
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    which=st.sampled_from(["unused", "used", "all"]),
    only_below=st.sampled_from([None, 0.25, 0.5, 1.0]),
    data=st.data(),
)
def test_equals_a_loop(counts, which, only_below, data):
    masked = data.draw(st.sets(st.integers(0, len(counts) - 1)))
    unmasked = [c for c in range(len(counts)) if c not in masked]
    used = [c for c in unmasked if counts[c]]
    expected = {
        "unused": [c for c in unmasked if not counts[c]],
        "used": used,
        "all": unmasked,
    }[which]
    if only_below is not None and (len(used) / len(unmasked) if unmasked else 0.0) >= only_below:
        expected = []
    assert reset_choice(torch.tensor(counts), which, masked, only_below).tolist() == expected
