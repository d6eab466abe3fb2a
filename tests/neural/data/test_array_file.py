import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightning_prune.neural.data.array_file import FileArray, array_names
from tests.neural.data.recordings import FORMATS, arrays, write


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / f"a.{request.param}", arrays())


def test_slices_equal_the_array(path: Path) -> None:
    expected, found = arrays()["stimulus"], FileArray(path, "stimulus")
    assert (found.shape, found.dtype, len(found)) == (expected.shape, np.uint8, len(expected))
    np.testing.assert_array_equal(found[3:9], expected[3:9])
    np.testing.assert_array_equal(found[()], expected)


@pytest.mark.parametrize(
    "array", [np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.zeros((0, 2))]
)
def test_any_layout_of_an_uncompressed_file(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", first=np.ones(7), x=array)
    np.testing.assert_array_equal(FileArray(tmp_path / "a.npz", "x")[()], array)


def test_only_uncompressed_files_are_mapped(tmp_path: Path) -> None:
    mapped = FileArray(write(tmp_path / "a.npz", arrays()), "stimulus").in_memory()
    read = FileArray(write(tmp_path / "a.compressed.npz", arrays()), "stimulus").in_memory()
    assert isinstance(mapped, np.memmap)
    assert isinstance(read, np.ndarray)
    assert not isinstance(read, np.memmap)
    assert FileArray(write(tmp_path / "a.h5", arrays()), "stimulus").in_memory() is None


def test_pickle_holds_the_place_not_the_values(path: Path) -> None:
    values = np.arange(10_000)
    array = FileArray(write(path, {"stimulus": values}), "stimulus")
    data = pickle.dumps(array)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data)[()], array[()])


def test_another_process_opens_hdf5_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = FileArray(path, "stimulus")
    opened = array._open()
    assert array._open() is opened
    monkeypatch.setattr("lightning_prune.neural.data.array_file.os.getpid", lambda: -1)
    assert (array._open() is opened) == (path.suffix == ".npz")
    np.testing.assert_array_equal(array[()], arrays()["stimulus"])


def test_names(path: Path) -> None:
    assert sorted(array_names(path)) == sorted(arrays())


def test_groups_of_hdf5_are_no_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.ones(2)
        file.create_group("y")
    assert array_names(tmp_path / "a.h5") == ["x"]


def test_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(KeyError):
        FileArray(path, "y")
    with pytest.raises(ValueError, match="Python objects"):
        FileArray(path, "x")
