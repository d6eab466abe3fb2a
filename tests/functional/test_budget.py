import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.functional.budget import scale_widths
from lightning_prune.functional.width import clip_width


def at(factor, counts, channels, keep_range, round_to):
    return [
        clip_width(max(1, round(factor * n)), c, keep_range, round_to).width
        for n, c in zip(counts, channels, strict=True)
    ]


layers = st.lists(
    st.integers(4, 40).flatmap(lambda c: st.tuples(st.integers(1, c), st.just(c))),
    min_size=1,
    max_size=4,
)


@given(
    layers,
    st.floats(0.05, 1.0),
    st.sampled_from([None, (0.25, 0.5), (0.1, 1.0)]),
    st.sampled_from([1, 4, 8]),
)
def test_the_largest_factor_that_fits_by_trying_them_all(layers, share, keep_range, round_to):
    counts, channels = zip(*layers, strict=True)

    # As in a chain: every layer costs its width times the one before.
    def cost(widths):
        return sum(a * b for a, b in zip([3, *widths], [*widths, 5], strict=True))

    budget = share * cost(channels)
    steps = sorted({(w + h) / n for n, c in layers for w in range(c + 1)
                    for h in (0.5 - 1e-7, 0.5, 0.5 + 1e-7)} | {0.0})  # fmt: skip
    fitting = [
        widths
        for widths in (at(f, counts, channels, keep_range, round_to) for f in steps)
        if cost(widths) <= budget
    ]
    if not fitting:
        with pytest.raises(ValueError, match="cannot be met"):
            scale_widths(counts, channels, cost, budget, keep_range, round_to)
        return
    found = scale_widths(counts, channels, cost, budget, keep_range, round_to)
    assert cost(found) <= budget
    assert found == fitting[-1]


def test_a_generous_budget_gives_the_upper_bounds():
    assert scale_widths([2, 3], [8, 12], sum, 1e9) == [4, 6]
    assert scale_widths([2, 3], [8, 12], sum, 1e9, keep_range=None) == [8, 12]


def test_the_error_states_the_smallest_cost():
    with pytest.raises(ValueError, match=r"budget 4 cannot be met: .* cost 5"):
        scale_widths([2, 3], [8, 12], sum, 4)


def test_no_layers_cost_nothing_or_too_much():
    assert scale_widths([], [], sum, 0) == []
    with pytest.raises(ValueError, match="cannot be met"):
        scale_widths([], [], lambda widths: 7, 6)
