from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune.errors import DataError
from lightning_prune.neural.data.sessions import NeuralSessionsDataModule
from tests.neural.data.recordings import FORMATS, arrays, write

TRIALS = (30,) * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, ending in enumerate(FORMATS):
        content = arrays(index, cells=2 + index, trials=TRIALS, valid=np.ones(180, bool))
        write(tmp_path / f"{index}.{ending}", content)
    return tmp_path


def loaded(files: Any, **options: Any) -> NeuralSessionsDataModule:
    return NeuralSessionsDataModule(files, batch_size=8, **options)


def test_files_patterns_and_their_order(folder: Path) -> None:
    assert loaded(str(folder / "*")).cells == [2, 3, 4]
    assert loaded([str(folder / "2.h5"), str(folder / "*.npz")]).cells == [4, 2, 3]


def test_workers_change_nothing(folder: Path) -> None:
    batches = [list(loaded(str(folder / "*"), num_workers=n).val_dataloader()) for n in (0, 1)]
    assert len(batches[0]) == 3
    for alone, worker in zip(*batches, strict=True):
        for part, other in zip(alone, worker, strict=True):
            for name, value in part.items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=0, equal_nan=True)


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    content = arrays(0, trials=TRIALS)
    path = write(tmp_path / "a[1].npz", content)
    assert loaded(str(path)).cells == [3]


def test_movies_of_grey_values_are_scaled_and_said(tmp_path: Path) -> None:
    whole = arrays(0, trials=TRIALS, valid=np.ones(180, bool))
    grey = loaded(str(write(tmp_path / "a.npz", whole)))
    whole["stimulus"] = whole["stimulus"].astype(">f4")
    floats = loaded(str(write(tmp_path / "b.h5", whole)))
    with pytest.warns(UserWarning, match="range 0 to 255: taken as grey values, it is scaled"):
        batches = list(floats.val_dataloader())
    for found, expected in zip(batches, grey.val_dataloader(), strict=True):
        torch.testing.assert_close(found[0]["stimulus"], expected[0]["stimulus"])


def test_floating_point_types_go_together(tmp_path: Path) -> None:
    for index, kind in enumerate((">f4", "<f8")):
        whole = arrays(index, trials=TRIALS, valid=np.ones(180, bool))
        whole["stimulus"] = (whole["stimulus"] / 255).astype(kind)
        write(tmp_path / f"{index}.h5", whole)
    module = loaded(str(tmp_path / "*.h5"))
    with pytest.warns(UserWarning, match="range 0 to 1: taken as grey values over 255"):
        module.setup("fit")
    assert all(inputs["stimulus"].dtype == torch.float32 for inputs, _ in module.val_dataloader())
    assert module.attainable_bits_per_spike() is not None


def test_errors(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file, and no file matches it"):
        _ = loaded(str(folder / "*.mat")).cells
    with pytest.raises(DataError, match=r"given twice: .*2.h5"):
        _ = loaded([str(folder / "*"), str(folder / "2.h5")]).cells
    content = arrays(1, trials=TRIALS, behavior=np.ones((180, 7)))
    write(folder / "9.npz", content)
    with pytest.raises(DataError, match=r"9.npz: columns of `behavior` is 7, but 4 in .*0.npz"):
        loaded(str(folder / "*.npz")).setup("fit")
