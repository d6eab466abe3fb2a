import json

from lightning_prune.observe.usage_history import UsageHistory


def filled():
    history = UsageHistory()
    history.add(2, {"a": (8, 6), "b": (4, 4)}, {})
    history.add(3, {"a": (8, 8), "b": (4, 1)}, {"a": 2})
    history.add(4, {"a": (6, 3), "b": (2, 2)}, {"a": 1, "b": 3})
    return history


def test_rows_by_epoch():
    history = filled()
    assert history.epochs == [2, 3, 4]
    assert history.layers["a"] == {"channels": [8, 8, 6], "used": [6, 8, 3], "reset": [0, 2, 1]}
    assert history.layers["b"] == {"channels": [4, 4, 2], "used": [4, 1, 2], "reset": [0, 0, 3]}


def test_sums():
    history = filled()
    assert [history.total(key) for key in ("channels", "used", "reset")] == [8, 5, 4]
    assert history.resets() == 6
    assert history.ratios() == {"a": 0.5, "b": 1.0}


def test_an_epoch_is_added_once():
    history = filled()
    history.add(4, {"a": (1, 1), "b": (1, 1)}, {"a": 1})
    assert history.state_dict() == filled().state_dict()


def test_layers_that_come_and_go():
    """A resumed run may track others; every row has a number for every epoch."""
    history = filled()
    history.add(5, {"b": (2, 1), "c": (3, 3)}, {"c": 1})
    assert history.layers == {
        "a": {"channels": [8, 8, 6, 0], "used": [6, 8, 3, 0], "reset": [0, 2, 1, 0]},
        "b": {"channels": [4, 4, 2, 2], "used": [4, 1, 2, 1], "reset": [0, 0, 3, 0]},
        "c": {"channels": [0, 0, 0, 3], "used": [0, 0, 0, 3], "reset": [0, 0, 0, 1]},
    }
    assert history.ratios() == {"a": 0.0, "b": 0.5, "c": 1.0}


def test_empty():
    history = UsageHistory()
    assert not history
    assert (history.total("used"), history.resets(), history.ratios()) == (0, 0, {})
    history.add(0, {"a": (0, 0)}, {})
    assert history
    assert history.ratios() == {"a": 0.0}


def test_survives_json_and_shares_nothing():
    history, other = filled(), UsageHistory()
    state = history.state_dict()
    other.load_state_dict(json.loads(json.dumps(state)))
    other.add(5, {"a": (6, 6), "b": (2, 2)}, {})
    assert history.epochs == [2, 3, 4]
    assert len(state["layers"]["a"]["used"]) == 3
    assert other.layers["a"]["used"] == [6, 8, 3, 6]
