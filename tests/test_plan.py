import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.plan import PruningPlan


def plan(**keep):
    return PruningPlan({n: torch.tensor(k) for n, k in keep.items()}, dict.fromkeys(keep, 6))


subsets = st.sets(st.integers(0, 5), min_size=1).map(sorted)


@given(subsets)
def test_mask_kept_and_removed_are_complements(kept):
    one = plan(a=kept)
    assert one.mask("a").nonzero().flatten().tolist() == kept
    assert sorted([*one.removed("a").tolist(), *kept]) == list(range(6))
    assert one.widths() == {"a": len(kept)}
    assert bool(one) is (len(kept) < 6)


@given(subsets, subsets, subsets)
def test_merging_keeps_what_no_plan_removes(first, second, third):
    a, b = plan(x=first, y=third), plan(x=second, z=third)
    both = sorted(set(first) & set(second))
    if not both:
        with pytest.raises(ValueError, match="remove every channel of 'x'"):
            a.merge(b)
        return
    merged = a.merge(b)
    assert {n: k.tolist() for n, k in merged.keep.items()} == {"x": both, "y": third, "z": third}
    reverse = b.merge(a)
    assert {n: k.tolist() for n, k in reverse.keep.items()} == {
        n: k.tolist() for n, k in merged.keep.items()
    }


def test_the_empty_plan_is_neutral_and_false():
    assert not PruningPlan()
    merged = PruningPlan().merge(plan(a=[1, 2]))
    assert merged.keep["a"].tolist() == [1, 2]


def test_plans_of_different_models_do_not_merge():
    other = PruningPlan({"a": torch.tensor([0])}, {"a": 9})
    with pytest.raises(ValueError, match="6 channels in one plan, 9 in the other"):
        plan(a=[0]).merge(other)


def test_state_is_plain_data():
    buffer = io.BytesIO()
    torch.save(plan(a=[1, 4]).state_dict(), buffer)
    buffer.seek(0)
    again = PruningPlan.from_state_dict(torch.load(buffer, weights_only=True))
    assert again.keep["a"].tolist() == [1, 4]
    assert again.channels == {"a": 6}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([], "non-empty"),
        ([0.5], "int64"),
        ([[1, 2]], "1-D"),
        ([2, 1], "sorted unique"),
        ([1, 1], "sorted unique"),
        ([-1, 2], r"in \[0, 6\)"),
        ([6], r"in \[0, 6\)"),
    ],
)
def test_wrong_indices_are_refused(keep, message):
    with pytest.raises(ValueError, match=message):
        plan(a=keep)


def test_names_must_agree():
    with pytest.raises(ValueError, match=r"different groups: \['a', 'b'\]"):
        PruningPlan({"a": torch.tensor([0])}, {"b": 3})
