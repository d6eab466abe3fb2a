import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.functional.widths.budget import scale_widths
from lightning_prune.functional.widths.width import clip_width


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
def test_the_largest_factor_that_fits_and_then_single_blocks_by_trying_them_all(
    layers, share, keep_range, round_to
):
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
    # What the factor leaves of the budget widens one layer at a time.
    expected = list(fitting[-1])
    while True:
        options = []
        for layer, (count, wide) in enumerate(zip(counts, channels, strict=True)):
            allowed = {clip_width(k, wide, keep_range, round_to).width for k in range(1, wide + 1)}
            for width in sorted(w for w in allowed if w > expected[layer])[:1]:
                wider = [*expected[:layer], width, *expected[layer + 1 :]]
                options += [(width / count, layer, wider)] if cost(wider) <= budget else []
        if not options:
            break
        expected = min(options)[2]
    assert found == expected


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


def test_layers_that_jump_together_are_widened_one_by_one():
    # All four layers reach 16 channels at the same factor, which only three can afford.
    found = scale_widths([12] * 4, [64] * 4, sum, 60, keep_range=None, round_to=8)
    assert found == [16, 16, 16, 8]
    assert scale_widths([12] * 4, [64] * 4, sum, 64, keep_range=None, round_to=8) == [16] * 4
