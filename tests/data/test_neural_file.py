from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_prune.data.checks import DataError
from lightning_prune.data.neural_file import read_session
from tests.data.neural_recordings import FORMATS, arrays, session, write


@pytest.mark.parametrize("ending", FORMATS)
def test_all_formats_give_what_was_written(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", arrays())
    found, expected = read_session(path), session()
    assert found.name == str(path)
    for name in ("spikes", "behavior", "valid", "trial", "rate", "repeat"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    np.testing.assert_array_equal(found.stimulus[()], expected.stimulus)
    assert (found.frame_rate, found.cells) == (120.0, 3)
    np.testing.assert_array_equal(found.labels["eye"], expected.labels["eye"])
    assert found.label_names == {"eye": ["fixation", "saccade"]}


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_optional_may_be_missing(tmp_path: Path, ending: str) -> None:
    optional = ("labels_eye", "label_names_eye", "rate", "repeat")
    content = arrays(**dict.fromkeys(optional), valid=np.ones(55, bool))
    found = read_session(write(tmp_path / f"a.{ending}", content))
    assert (found.labels, found.rate, found.repeat) == ({}, None, None)
    assert found.valid.shape == (55, 3)


def test_label_sets_without_names_count_their_classes(tmp_path: Path) -> None:
    content = arrays(label_names_eye=None, labels=np.arange(55) % 4 - 1)
    found = read_session(write(tmp_path / "a.npz", content))
    assert found.label_names == {"eye": ["0", "1"], "labels": ["0", "1", "2"]}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"valid": None, "trial": None},
            "the arrays valid, trial missing; found: .*spikes.*; wanted: stimulus, spikes",
        ),
        ({"stimulus": np.zeros((4, 4))}, r"`stimulus` has shape \(4, 4\)"),
        ({"frame_rate": np.ones(2)}, r"`frame_rate` has shape \(2,\) .*wanted: one number"),
        ({"labels_eye": np.full(55, 7)}, "`labels_eye` holds classes from 7 to 7"),
        ({"labels": np.full(55, -3)}, "`labels` holds classes from -3"),
    ],
)
def test_errors_name_the_file(
    tmp_path: Path, ending: str, change: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / f"a.{ending}", arrays(**change))
    with pytest.raises(DataError, match=words) as caught:
        read_session(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ending in .npz, .h5, .hdf5"):
        read_session(tmp_path / "a.mat")
    with pytest.raises(DataError, match="no such file"):
        read_session(tmp_path / "a.npz")
    for name in ("a.npz", "a.h5"):
        (tmp_path / name).write_bytes(b"no archive at all")
        with pytest.raises(DataError, match="not readable as"):
            read_session(tmp_path / name)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    content = arrays(trial=np.array([{}] * 55, dtype=object))
    for ending in FORMATS[:2]:
        with pytest.raises(DataError, match="`trial` cannot be read"):
            read_session(write(tmp_path / f"a.{ending}", content))


def test_a_file_cut_short_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.compressed.npz", arrays())
    content = bytearray(path.read_bytes())
    content[60:120] = bytes(60)  # inside the first member
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_session(path)
