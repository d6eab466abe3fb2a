import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.functional.widths.removal import RemovalPath
from lightning_prune.functional.widths.width import least_width, narrower_widths


def drawn(sizes: list[int], seed: int, shares: float = 0.0) -> tuple[list[Tensor], list[Tensor]]:
    """Importances, and which channels are gone already."""
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(size, generator=generator) for size in sizes]
    gone = [torch.rand(size, generator=generator) < shares for size in sizes]
    for lost in gone:
        lost[0] = False
    return importance, gone


def product(widths: list[int]) -> int:
    """As in a chain: every layer costs its width times the one before."""
    return sum(a * b for a, b in itertools.pairwise([3, *widths, 5]))


networks = st.tuples(
    st.lists(st.integers(1, 24), min_size=1, max_size=5),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1.0, 0.9, 0.6]),
    st.sampled_from(["global", "local", "pairs"]),
)


def path_of(drawn_network: tuple, shares: float = 0.0) -> RemovalPath:
    sizes, seed, round_to, most, ranking = drawn_network
    importance, gone = drawn(sizes, seed, shares)
    scopes = {
        "global": [0] * len(sizes),
        "local": list(range(len(sizes))),
        "pairs": [i // 2 for i in range(len(sizes))],
    }[ranking]
    least = [least_width(size, 1 - most) for size in sizes]
    return RemovalPath(importance, gone, scopes, least, round_to)


@given(st.integers(1, 70), st.sampled_from([1.0, 0.9, 0.5]), st.sampled_from([1, 3, 8]))
def test_narrower_widths_by_trying_all_widths(channels: int, most: float, round_to: int):
    allowed = [
        width
        for width in range(1, channels)
        if width % round_to == 0 and (channels - width) / channels <= most + 1e-12
    ]
    least = least_width(channels, 1 - most)
    assert narrower_widths(channels, least, round_to) == (channels, *reversed(allowed))


def test_narrower_widths_from_where_a_layer_is():
    assert narrower_widths(20, 6, 4, start=13) == (13, 12, 8)
    assert narrower_widths(20, 6, 8, start=8) == (8,)
    assert narrower_widths(20, 10, 4, start=5) == (5,)  # already past the largest ratio


@given(networks, st.integers(0, 10**6).map(lambda millionths: millionths / 10**6))
def test_single_channels_follow_one_ranking_per_scope(network: tuple, ratio: float):
    """With blocks of one channel and no cap the ratio r removes the ceil(r N) least of a scope."""
    sizes, seed, _, _, ranking = network
    path = path_of((sizes, seed, 1, 1.0, ranking))
    widths = path.widths(ratio)
    for scope in set(path.scopes):
        layers = [i for i, own in enumerate(path.scopes) if own == scope]
        # The best channel of every layer stays whatever happens.
        best = {(i, int(path.importance[i].argmax())) for i in layers}
        channels = [(i, c) for i in layers for c in range(sizes[i])]
        ranked = sorted(set(channels) - best, key=lambda at: float(path.importance[at[0]][at[1]]))
        count = math.ceil(ratio * len(channels) - 1e-9)
        removed = ranked[:count]
        for i in layers:
            expected = sorted(c for layer, c in removed if layer == i)
            assert sorted(path.removed_first[i][: sizes[i] - widths[i]].tolist()) == expected


@given(networks, st.sampled_from([0.0, 0.3]))
def test_every_width_on_the_path_is_allowed_and_none_grows(network: tuple, shares: float):
    sizes, _, round_to, most, _ = network
    path = path_of(network, shares)
    previous = path.start
    for ratio in [i / 40 for i in range(41)]:
        widths = path.widths(ratio)
        for layer, (width, before) in enumerate(zip(widths, previous, strict=True)):
            assert 1 <= width <= before
            if width < path.start[layer]:
                assert width % round_to == 0
                assert width >= (1 - most) * sizes[layer] - 1e-9
        previous = widths
    assert previous == path.narrowest
    scores = [block.score for block in path.blocks]
    assert scores == sorted(scores)


@given(networks)
def test_what_is_gone_goes_first_whatever_its_importance(network: tuple):
    path = path_of(network, shares=0.4)
    for order, gone, start in zip(path.removed_first, path.gone, path.start, strict=True):
        assert int(gone.sum()) == len(gone) - start
        assert bool(gone[order[: len(gone) - start]].all())
    assert path.widths(0.0) == path.start


def test_of_equal_channels_the_first_stay():
    path = RemovalPath([torch.ones(4)], [torch.zeros(4).bool()], [0])
    assert path.removed_first[0].tolist() == [3, 2, 1, 0]


def test_a_block_is_as_important_as_its_channels_on_average():
    # Blocks of two: [0, 9] is 4.5 on average, [4, 4.2] is 4.1, so the second layer goes first.
    layers = [torch.tensor([0.0, 9.0, 10.0, 11.0]), torch.tensor([4.0, 4.2, 20.0, 21.0])]
    path = RemovalPath(layers, [torch.zeros(4).bool()] * 2, [0, 0], round_to=2)
    assert [(block.layer, block.width) for block in path.blocks] == [(1, 2), (0, 2)]
    assert [block.score for block in path.blocks] == [1 / 8, 3 / 8]


def test_the_smaller_block_of_an_odd_width_goes_first():
    path = RemovalPath([torch.arange(11.0)], [torch.zeros(11).bool()], [0], round_to=4)
    assert [block.width for block in path.blocks] == [8, 4]
    assert path.blocks[0].score == 2 / 11


@given(networks, st.floats(0.02, 1.0), st.floats(0.0, 0.1))
@settings(max_examples=60)
def test_a_budget_is_met_with_no_room_for_another_block(
    network: tuple, share: float, tolerance: float
):
    path = path_of(network, shares=0.2)
    budget = share * product([len(values) for values in path.importance])
    found = path.widths_within(product, budget, tolerance * budget)
    if product(path.narrowest) > budget:
        assert found is None
        return
    assert found is not None
    assert product(found) <= budget
    for layer, (width, start) in enumerate(zip(found, path.start, strict=True)):
        channels, most, round_to = len(path.gone[layer]), network[3], network[2]
        steps = narrower_widths(channels, least_width(channels, 1 - most), round_to, start)
        assert width in steps
        if width < start:
            wider = steps[steps.index(width) - 1]
            assert product([*found[:layer], wider, *found[layer + 1 :]]) > budget
    if budget - product(found) > tolerance * budget:
        # Then no exchange of two blocks does better.
        steps = [narrower_widths(len(g), least_width(len(g), 1 - network[3]), network[2], s)
                 for g, s in zip(path.gone, path.start, strict=True)]  # fmt: skip
        for back, taken in itertools.permutations(range(len(found)), 2):
            up, down = steps[back].index(found[back]) - 1, steps[taken].index(found[taken]) + 1
            if up >= 0 and down < len(steps[taken]):
                other = list(found)
                other[back], other[taken] = steps[back][up], steps[taken][down]
                assert not product(found) < product(other) <= budget


@given(networks, st.floats(0.05, 0.95))
def test_with_a_shift_of_one_layers_stay_within_a_block_of_one_ratio(network: tuple, share: float):
    sizes, seed, round_to, most, _ = network
    path = path_of((sizes, seed, round_to, most, "local"))
    found = path.widths_within(product, share * product(sizes), 0.0, max_shift=1)
    if found is None:
        return
    free = [
        (size, width)
        for size, width, least in zip(sizes, found, path.narrowest, strict=True)
        if least < width  # else the cap, not the ratio, decides
    ]
    # One ratio r with |removed - r C| <= a block for all of them.
    lower = max((((size - width) - round_to) / size for size, width in free), default=0.0)
    upper = min((((size - width) + round_to) / size for size, width in free), default=1.0)
    assert lower <= upper + 1e-9


def test_a_budget_that_holds_already_takes_nothing():
    path = path_of(([8, 8], 0, 1, 1.0, "global"))
    assert path.widths_within(sum, 16, 0.0) == [8, 8]
    assert path.widths_within(sum, 1, 0.0) is None


def test_an_exchange_closes_the_gap():
    # A channel of the first layer costs 10, one of the second 4. Without exchanges the path stops
    # at 18 of 27, too far from the budget to give a channel of the first layer back.
    layers = [torch.tensor([1.0, 3.0, 5.0]), torch.tensor([6.0, 7.0])]
    path = RemovalPath(layers, [torch.zeros(len(v)).bool() for v in layers], [0, 0])

    def cost(widths: list[int]) -> int:
        return 10 * widths[0] + 4 * widths[1]

    assert path.widths_within(cost, 27, tolerance=99) == [1, 2]
    assert path.widths_within(cost, 27, tolerance=3) == [2, 1]  # one given back, one taken


@pytest.mark.parametrize("ratio", [0.3, 0.1 + 0.2, 0.7])
def test_ratios_that_are_not_exact_in_binary(ratio: float):
    path = RemovalPath([torch.arange(10.0)], [torch.zeros(10).bool()], [0])
    assert path.widths(ratio) == [10 - round(10 * ratio)]
