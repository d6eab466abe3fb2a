from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_prune.neural.data.collate import collate_windows
from lightning_prune.neural.data.movie_range import FRACTIONS, GREY, movie_scale
from lightning_prune.neural.data.recording_file import read_session
from lightning_prune.neural.data.windows import NeuralWindows, window_ends
from tests.neural.data.recordings import FORMATS, arrays, session, write

FRAMES = 4


def windows(*sessions, labels=None, frames=FRAMES):
    ends = [window_ends(each, frames) for each in sessions]
    index = np.repeat(np.arange(len(ends)), [len(each) for each in ends])
    return NeuralWindows(sessions, frames, index, np.concatenate(ends), labels)


def brute_force(sessions, frames=FRAMES, labels="eye"):
    """All samples, frame by frame and cell by cell."""
    most = max(each.cells for each in sessions)
    for index, whole in enumerate(sessions):
        for t in range(len(whole)):
            before = range(t - frames + 1, t + 1)
            if before[0] < 0 or any(whole.trial[u] != whole.trial[t] for u in before):
                continue
            if not any(whole.valid[t]):
                continue
            movie = torch.zeros(1, frames, *whole.stimulus.shape[1:])
            for place, u in enumerate(before):
                movie[0, place] = (torch.tensor(whole.stimulus[u]).float() - 127) / 255
            spikes, rate = torch.zeros(most), torch.full((most,), torch.nan)
            valid = torch.zeros(most, dtype=torch.bool)
            for cell in range(whole.cells):
                rate[cell] = float(whole.rate[t, cell])
                if whole.valid[t, cell]:
                    valid[cell], spikes[cell] = True, float(whole.spikes[t, cell])
            yield (
                {
                    "stimulus": movie,
                    "behavior": torch.tensor(whole.behavior[t]),
                    "session": torch.tensor(index),
                },
                {
                    "spikes": spikes,
                    "valid": valid,
                    "rate": rate,
                    "label": torch.tensor(int(whole.labels[labels][t])),
                    "repeat": torch.tensor(int(whole.repeat[t])),
                },
            )


def assert_equal(found, expected):
    for part, wanted in zip(found, expected, strict=True):
        assert part.keys() == wanted.keys()
        for name, value in wanted.items():
            assert part[name].dtype == value.dtype, name
            torch.testing.assert_close(part[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_equals_brute_force_and_crosses_no_border():
    sessions = [session(0, cells=3), session(1, cells=5, trials=(6, 3, 8))]
    found, expected = windows(*sessions, labels="eye"), list(brute_force(sessions))
    assert len(found) == len(expected) > 30
    for index, sample in enumerate(expected):
        assert_equal(found[index], sample)
    order = np.random.default_rng(0).permutation(len(expected))
    batch = found.__getitems__([(9, int(index)) for index in order])
    stacked = collate_windows([expected[index] for index in order])
    assert_equal(batch, stacked)


@pytest.mark.parametrize("frames", [1, 4, 12, 13])
def test_ends_of_windows(frames):
    whole = session(valid=np.arange(55) % 5 > 0)
    expected = [
        t
        for t in range(frames - 1, 55)
        if whole.valid[t, 0] and len(set(whole.trial[t - frames + 1 : t + 1])) == 1
    ]
    assert window_ends(whole, frames).tolist() == expected


def test_a_trial_number_that_comes_again_is_another_trial():
    whole = session(trials=(5, 5, 5), trial=np.repeat([0, 1, 0], 5), valid=np.ones(15, bool))
    assert window_ends(whole, 5).tolist() == [4, 9, 14]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_what_memory_gives(tmp_path, ending, workers):
    memory = [session(0), session(1, cells=5)]
    files = [
        read_session(write(tmp_path / f"{i}.{ending}", arrays(i, cells=each.cells)))
        for i, each in enumerate(memory)
    ]
    order = np.random.default_rng(0).permutation(len(windows(*memory))).tolist()
    loaders = [
        DataLoader(
            windows(*sessions, labels="eye"),
            batch_size=8,
            sampler=order,
            collate_fn=collate_windows,
            num_workers=workers,
        )
        for sessions in (memory, files)
    ]
    for expected, found in zip(*loaders, strict=True):
        assert_equal(found, expected)


def test_floating_point_movies_are_taken_as_they_are():
    movie = np.random.default_rng(0).normal(size=(55, 3, 2))
    inputs, _ = windows(session(stimulus=movie))[0]
    np.testing.assert_array_equal(inputs["stimulus"][0], movie[:FRAMES].astype(np.float32))


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_movie_reaches_the_network_alike_in_any_type(tmp_path, ending, kind):
    whole = session()
    expected = windows(whole)[5][0]["stimulus"]
    for divisor, scale in ((1, GREY), (255, FRACTIONS)):
        movie = (whole.stimulus / divisor).astype(kind)
        files = read_session(write(tmp_path / f"{divisor}.{ending}", arrays(stimulus=movie)))
        found, told = movie_scale([files])
        assert found == scale
        assert "range" in told
        stimulus = replace(windows(files), scale=found)[5][0]["stimulus"]
        torch.testing.assert_close(stimulus, expected, rtol=0, atol=1e-3 if kind == "<f2" else 1e-6)


def test_what_only_one_session_has():
    sessions = session(0), session(1, rate=None, repeat=None)
    _, targets = windows(*sessions).__getitems__(range(len(windows(*sessions))))
    first = torch.arange(len(targets["rate"])) < len(window_ends(sessions[0], FRAMES))
    assert targets["rate"].isnan().all(dim=1).tolist() == (~first).tolist()
    bare = session(0, rate=None, repeat=None)
    assert windows(bare)[0][1].keys() == {"spikes", "valid"}


def test_spikes_that_are_not_valid_do_not_get_out():
    whole = session(spikes=np.full((55, 3), np.nan), valid=np.tile([True, False, False], (55, 1)))
    whole.spikes[:, 0] = 2
    _, targets = windows(whole).__getitems__(range(5))
    assert targets["spikes"].tolist() == [[2.0, 0.0, 0.0]] * 5


def test_shuffled_is_the_same_windows_in_a_fixed_order():
    whole = windows(session(0), session(1))
    first, again, other = (whole.shuffled(seed) for seed in (0, 0, 1))
    pairs = [
        list(zip(each.session, each.end, strict=True)) for each in (whole, first, again, other)
    ]
    assert pairs[1] == pairs[2] != pairs[3]
    assert sorted(pairs[1]) == pairs[0] != pairs[1]
