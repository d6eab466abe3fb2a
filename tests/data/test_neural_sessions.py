from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune.data.checks import DataError
from lightning_prune.data.neural_sessions import NeuralSessionsDataModule
from tests.data.neural_recordings import FORMATS, arrays, write

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


def test_errors(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file, and no file matches it"):
        _ = loaded(str(folder / "*.mat")).cells
    with pytest.raises(DataError, match=r"given twice: .*2.h5"):
        _ = loaded([str(folder / "*"), str(folder / "2.h5")]).cells
    content = arrays(1, trials=TRIALS, behavior=np.ones((180, 7)))
    write(folder / "9.npz", content)
    with pytest.raises(DataError, match=r"9.npz: columns of `behavior` is 7, but 4 in .*0.npz"):
        loaded(str(folder / "*.npz")).setup("fit")
