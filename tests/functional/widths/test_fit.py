from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.functional.widths.fit import AllowedWidths, fit_widths


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 60), st.data())
def test_what_is_widened_fits_and_nothing_more_would(heights, slack, data):
    widths = [2] * len(heights)
    allowed = []
    for height in heights:
        ranks = sorted(data.draw(st.lists(st.integers(0, 9), min_size=height, max_size=height)))
        allowed.append(AllowedWidths(range(2, 3 + height), [float(rank) for rank in ranks]))

    def cost(found):
        return sum(a * b for a, b in zip([3, *found], [*found, 5], strict=True))

    budget = cost(widths) + slack
    found = fit_widths(widths, allowed, cost, budget)
    assert cost(found) <= budget
    for layer, own in enumerate(allowed):
        assert found[layer] in own.widths
        if found[layer] < own.widths[-1]:
            assert cost([*found[:layer], found[layer] + 1, *found[layer + 1 :]]) > budget
    # The step of the lowest rank that fits was taken.
    first = min((own.ranks[0], layer) for layer, own in enumerate(allowed))
    if cost([*widths[: first[1]], 3, *widths[first[1] + 1 :]]) <= budget:
        assert found[first[1]] > 2


def test_without_a_tolerance_nothing_is_exchanged():
    # A channel of the first layer costs 10, one of the second 4.
    allowed = [AllowedWidths([1, 2], [0.0]), AllowedWidths([1, 2], [1.0])]

    def cost(widths):
        return 10 * widths[0] + 4 * widths[1]

    assert fit_widths([1, 2], allowed, cost, 27) == [1, 2]
    assert fit_widths([1, 2], allowed, cost, 27, tolerance=3) == [2, 1]
