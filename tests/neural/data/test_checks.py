from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lightning_prune.errors import DataError
from lightning_prune.neural.data.checks import check_session
from tests.neural.data.recordings import session

FRAMES = 55


def changed(array: np.ndarray, place: Any, value: Any, dtype: Any = None) -> np.ndarray:
    array = array.astype(dtype or array.dtype)
    array[place] = value
    return array


def test_a_sound_session_is_given_back() -> None:
    whole = session()
    found = check_session(whole)
    assert found.valid is whole.valid
    assert found.frame_rate == 120.0
    for name in ("stimulus", "spikes", "behavior", "trial", "rate"):
        assert getattr(found, name) is getattr(whole, name)


def test_valid_frames_hold_for_all_cells() -> None:
    rows = np.arange(FRAMES) % 3 > 0
    found = check_session(replace(session(), valid=rows))
    np.testing.assert_array_equal(found.valid, np.stack([rows] * 3, axis=1))


def test_what_is_not_valid_may_hold_anything() -> None:
    whole = session()
    valid = changed(whole.valid, 5, False)
    spikes = changed(whole.spikes, 5, np.nan, float)
    behavior = changed(whole.behavior, (5, 1), np.inf)
    check_session(replace(whole, valid=valid, spikes=spikes, behavior=behavior))


_sound = session()
_valid = np.ones((FRAMES, 3), bool)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "flat stimulus": (
        {"stimulus": np.zeros((FRAMES, 6), np.uint8)},
        r"`stimulus` has shape \(55, 6\); wanted: \(T, H, W\)",
    ),
    "wide stimulus": (
        {"stimulus": _sound.stimulus.astype(np.int64)},  # type: ignore[union-attr]
        "`stimulus` has type int64; wanted: uint8 or floating point",
    ),
    "NaN stimulus": (
        {"stimulus": changed(_sound.stimulus, (7, 1, 1), np.nan, np.float32)},  # type: ignore[arg-type]
        "`stimulus` is NaN or infinite, first in frame 7",
    ),
    "short spikes": (
        {"spikes": _sound.spikes[:-1]},
        "`spikes` has 54 rows; wanted: one row for each of the 55 frames",
    ),
    "no cell": ({"spikes": _sound.spikes[:, :0]}, "holds no cell"),
    "negative spikes": (
        {"spikes": changed(_sound.spikes, (4, 2), -1, np.int64), "valid": _valid},
        "`spikes` is negative at 1 valid places, first frame 4, cell 2",
    ),
    "NaN spikes": (
        {"spikes": changed(_sound.spikes, (4, 2), np.nan, float), "valid": _valid},
        "`spikes` is NaN or infinite",
    ),
    "text spikes": ({"spikes": _sound.spikes.astype(str)}, "`spikes` has type <U"),
    "number mask": ({"valid": _valid.astype(int)}, "`valid` has type int64; wanted: bool"),
    "mask of other cells": (
        {"valid": _valid[:, :2]},
        r"`valid` has shape \(55, 2\); wanted: \(55,\) or \(55, 3\)",
    ),
    "nothing valid": ({"valid": ~_valid}, "`valid` is False everywhere"),
    "flat behavior": ({"behavior": np.zeros(FRAMES)}, r"wanted: \(T, D\)"),
    "NaN behavior": (
        {"behavior": changed(_sound.behavior, (9, 0), np.nan), "valid": _valid},
        "`behavior` is NaN or infinite in 1 valid frames, first in frame 9",
    ),
    "fractional trial": ({"trial": np.zeros(FRAMES)}, "`trial` has type float64; wanted: integers"),
    "short repeat": ({"repeat": np.zeros(3, int)}, "`repeat` has 3 rows"),
    "unknown class": (
        {"labels": {"eye": np.full(FRAMES, 2)}},
        "`labels_eye` holds classes from 2 to 2; wanted: classes 0 to 1",
    ),
    "other rate": ({"rate": np.ones((FRAMES, 2))}, r"`rate` has shape \(55, 2\)"),
    "negative rate": (
        {"rate": np.full((FRAMES, 3), -1.0)},
        "`rate` is negative",
    ),
    "time last": (
        {"stimulus": np.zeros((3, 2, FRAMES), np.uint8)},
        r"`stimulus` has shape \(3, 2, 55\), its time axis is not the first; .* transpose it",
    ),
    "cells first": (
        {"spikes": np.zeros((3, FRAMES), int)},
        r"`spikes` has shape \(3, 55\), its time axis .* wanted: \(T, N\) with T = 55",
    ),
    "huge behavior": (
        {"behavior": np.full((FRAMES, 2), 1e300)},
        "`behavior` is NaN or infinite in 55 valid frames",
    ),
    "complex spikes": ({"spikes": np.zeros((FRAMES, 3), complex)}, "`spikes` has type complex128"),
    "endless frame rate": ({"frame_rate": np.inf}, "`frame_rate` is inf"),
    "no frame rate": ({"frame_rate": 0.0}, "`frame_rate` is 0.0"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_name_session_array_found_and_wanted(case: str) -> None:
    change, words = CASES[case]
    with pytest.raises(DataError, match=words) as caught:
        check_session(replace(session(name="a.npz"), **change))
    assert str(caught.value).startswith("a.npz: the array `")
    assert "; wanted: " in str(caught.value)


def test_the_range_of_a_floating_point_movie_is_noted() -> None:
    movie = np.linspace(-1, 3, FRAMES * 6).reshape(FRAMES, 3, 2).astype(">f4")
    assert check_session(replace(session(), stimulus=movie)).movie_range == (-1.0, 3.0)
    assert check_session(session()).movie_range is None


def test_a_long_movie_is_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_prune.neural.data.checks._BLOCK", 100)
    movie = session().stimulus.astype(np.float32)  # type: ignore[union-attr]
    check_session(replace(session(), stimulus=movie))
    with pytest.raises(DataError, match="first in frame 50"):
        check_session(replace(session(), stimulus=changed(movie, (50, 0, 0), np.inf)))
