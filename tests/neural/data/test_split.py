import numpy as np
import pytest

from lightning_prune.errors import DataError
from lightning_prune.neural.data.split import split_windows
from lightning_prune.neural.data.windows import window_ends
from tests.neural.data.recordings import session


def trials_of(whole, ends):
    return set(whole.trial[ends].tolist())


@pytest.mark.parametrize("seed", range(5))
def test_trials_are_divided_and_no_window_is_lost(seed):
    whole = session(trials=(10,) * 20)
    split = split_windows(whole, 5, 0.1, 0.25, seed)
    sets = {name: trials_of(whole, ends) for name, ends in split.items()}
    assert {name: len(each) for name, each in sets.items()} == {"train": 13, "val": 2, "test": 5}
    assert set.union(*sets.values()) == set(range(20))
    together = np.sort(np.concatenate(list(split.values())))
    np.testing.assert_array_equal(together, window_ends(whole, 5))


def test_the_seed_decides():
    whole = session(trials=(10,) * 20)
    first, again, other = (split_windows(whole, 5, 0.2, 0.2, seed) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert trials_of(whole, first["train"]) != trials_of(whole, other["train"])


def test_repeated_trials_are_for_the_test():
    trial = np.repeat(np.arange(8), 10)
    repeat = np.where((trial == 2) | (trial == 6), np.tile(np.arange(10), 8), -1)
    repeat[23] = -1  # a part of the trial is enough
    whole = session(trials=(10,) * 8, repeat=repeat)
    for seed in range(5):
        split = split_windows(whole, 5, 0.2, 0.2, seed)
        assert trials_of(whole, split["test"]) >= {2, 6}
        assert len(trials_of(whole, split["test"])) == 3


def test_every_part_has_a_trial_and_short_trials_count_for_nothing():
    whole = session(trials=(9, 3, 9, 3, 9))
    split = split_windows(whole, 5, 0.01, 0.01, 0)
    assert all(len(trials_of(whole, ends)) == 1 for ends in split.values())
    with pytest.raises(DataError, match=r"here: 0 trials .* window of 10 frames \(of 5 trials"):
        split_windows(whole, 10, 0.1, 0.1, 0)
    large = split_windows(whole, 5, 0.9, 0.05, 0)
    assert all(len(ends) for ends in large.values())
