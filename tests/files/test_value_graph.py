from collections import OrderedDict

import pytest

from lightning_prune.files.value_graph import DEEPEST, check_graph


def nested(levels: int, wrap=lambda value: [value]):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}])
def test_the_depth_is_bounded(wrap):
    check_graph(nested(DEEPEST, wrap))
    with pytest.raises(ValueError, match="nested more than 200 deep"):
        check_graph(nested(DEEPEST + 1, wrap))


def test_a_value_seen_before_counts_with_its_depth():
    low = nested(150)
    check_graph([low, nested(40, lambda v: [v]), [[low]]])
    with pytest.raises(ValueError, match="nested more than"):
        check_graph([low, [nested(60, lambda v: [low] if v == 1 else [v])]])


def test_what_holds_itself_is_refused():
    itself = []
    itself.append({"x": (itself,)})
    with pytest.raises(ValueError, match="holds itself"):
        check_graph(itself)
    attribute = OrderedDict()
    attribute._metadata = [attribute]
    with pytest.raises(ValueError, match="holds itself"):
        check_graph(attribute)


def test_sharing_is_allowed_until_it_unfolds_to_millions():
    betas = (0.9, 0.999)
    check_graph([{"betas": betas} for _ in range(1000)])
    check_graph(nested(15, lambda v: [v, v]))
    with pytest.raises(ValueError, match="shared again and again"):
        check_graph(nested(60, lambda v: [v, v]))
    check_graph(7)
    check_graph([[], {}, (), set(), frozenset({(1, 2)})])
