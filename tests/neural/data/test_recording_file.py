import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_prune.errors import DataError
from lightning_prune.neural.data.recording_file import read_session
from tests.neural.data.recordings import FORMATS, arrays, session, write


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
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "set.zarr").mkdir()
    for name, words in (
        ("pipe.h5", "a named pipe"),
        ("folder.h5", "a folder"),
        ("set.zarr", "copy its arrays with numpy.savez or h5py"),
        ("a.mat", "save its arrays with h5write"),
    ):
        with pytest.raises(DataError, match=words):
            read_session(tmp_path / name)
    for name in ("a.npz", "a.h5"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
        with pytest.raises(DataError, match=r"not readable as .*: a Git LFS pointer to 9 bytes"):
            read_session(tmp_path / name)
        (tmp_path / name).write_bytes(b"no archive at all")
        with pytest.raises(DataError, match="not readable as"):
            read_session(tmp_path / name)


class Runs:
    """A pickle of it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    content = arrays(trial=np.array([Runs(tmp_path / "made")] * 55, dtype=object))
    for ending in FORMATS[:2]:
        with pytest.raises(DataError, match="`trial` cannot be read"):
            read_session(write(tmp_path / f"a.{ending}", content))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("behavior", [None, np.zeros((55, 0))])
def test_without_behavior_there_is_a_column_of_zeros(tmp_path: Path, behavior: Any) -> None:
    path = write(tmp_path / "a.h5", arrays(behavior=behavior))
    with pytest.warns(UserWarning, match=r"a.h5: no column of `behavior`: one of zeros is taken"):
        found = read_session(path)
    assert found.behavior.tolist() == [[0.0]] * 55


def test_damage_of_a_movie_in_hdf5_is_known_before_training(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in arrays(label_names_eye=None).items():
            chunks = (11, 3, 2) if name == "stimulus" else None
            file.create_dataset(name, data=value, chunks=chunks, compression=chunks and "gzip")
        place = file["stimulus"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match="`stimulus` cannot be read from frame 0 on"):
        read_session(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"not readable as .h5 file: .*truncated"):
        read_session(path)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("spikes", (10**12, 4), "`spikes` has shape .*, 1.6e.04 GB; wanted: what fits into memory"),
        (
            "stimulus",
            (10**9, 1000, 1000),
            "`trial` has 55 rows; wanted: one row for each of the 1000",
        ),
    ],
)
def test_claims_beyond_all_memory_are_refused_at_once(
    tmp_path: Path, name: str, shape: tuple[int, ...], words: str
) -> None:
    path = write(tmp_path / "a.h5", arrays(**{name: None}))
    with h5py.File(path, "a") as file:
        kind = np.uint8 if name == "stimulus" else np.float32
        file.create_dataset(name, shape, kind, chunks=(1, *(100 for _ in shape[1:-1]), 4))
    with pytest.raises(DataError, match=words):
        read_session(path)


def test_a_label_that_claims_a_billion_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", arrays(labels=np.full(55, 10**9)))
    with pytest.raises(DataError, match="`labels` holds the class 1000000000"):
        read_session(path)


def test_a_file_cut_short_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.compressed.npz", arrays())
    content = bytearray(path.read_bytes())
    content[60:120] = bytes(60)  # inside the first member
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_session(path)
