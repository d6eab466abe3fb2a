"""A resumed run equals the uninterrupted one, bit by bit."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.callbacks.classifiers import Classifier as Plain
from tests.callbacks.classifiers import trainer
from tests.contract.registry import EPOCHS, MODULES, Classifier
from tests.contract.runs import QUIET, differences, fit, pairs, recorded

pytestmark = QUIET
Whole = tuple[str, str, Path, dict[str, Any]]


@pytest.fixture(scope="module", params=pairs())
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    """An uninterrupted run."""
    recipe, module = request.param
    folder = tmp_path_factory.mktemp(f"{recipe}_{module}")
    yield recipe, module, folder, recorded(folder, recipe, module)
    shutil.rmtree(folder)  # a detector's files of every batch are a gigabyte


def resumed(whole: Whole, file: str, folder: Path, **options: Any) -> list[str]:
    """Resume from a file in a folder whose log is that of the whole run; return differences."""
    recipe, module, source, expected = whole
    folder.mkdir(parents=True)
    shutil.copy(source / "metrics.csv", folder)
    found = recorded(folder, recipe, module, source / file, **options)
    shutil.rmtree(folder)
    return differences(expected, found)


@pytest.mark.contract("resume from the end of an epoch, in every stage")
def test_from_the_end_of_every_epoch(whole: Whole, tmp_path: Path) -> None:
    for epoch in range(EPOCHS - 1):
        assert resumed(whole, f"epoch/{epoch}.ckpt", tmp_path / str(epoch)) == []


@pytest.mark.contract("resume from within an epoch, in every stage")
def test_from_within_epochs(whole: Whole, tmp_path: Path) -> None:
    batches = MODULES[whole[1]].batches
    # The first and the second batch of an epoch in turn: before, between and after the masks.
    for epoch in range(EPOCHS):
        step = epoch * batches + 1 + epoch % 2
        assert resumed(whole, f"batch/{step}.ckpt", tmp_path / str(step)) == []


@pytest.mark.contract("resume from the last batch of an epoch, and from a validation")
def test_from_between_the_last_batch_and_the_end_of_an_epoch(whole: Whole, tmp_path: Path) -> None:
    batches = MODULES[whole[1]].batches
    for epoch in range(EPOCHS - 1):
        name = f"validated/{epoch}.ckpt" if epoch % 2 else f"batch/{(epoch + 1) * batches}.ckpt"
        assert resumed(whole, name, tmp_path / str(epoch)) == []


@pytest.mark.contract("resume again and again, with loader workers")
def test_from_one_interruption_to_the_next(whole: Whole, tmp_path: Path) -> None:
    recipe, module, source, expected = whole
    batches, last = MODULES[module].batches, source
    for step in (2, 3, 2 * batches + 1, 3 * batches + 2):
        folder = tmp_path / str(step)
        folder.mkdir()
        shutil.copy(last / "metrics.csv", folder)
        found = recorded(folder, recipe, module, last / "batch" / f"{step}.ckpt", workers=1)
        assert differences(expected, found) == []
        if last != source:
            shutil.rmtree(last)
        last = folder


class Shuffled(Classifier):
    """A classifier with a loader of torch's own, which cannot tell where it stands."""

    def train_dataloader(self) -> Any:
        data = super().train_dataloader().dataset
        pictures = [data.patterns[index] for index in range(len(data))]
        return torch.utils.data.DataLoader(pictures, batch_size=24, shuffle=True)


def test_foreign_loaders_resume_at_the_ends_of_epochs_and_warn_elsewhere(tmp_path: Path) -> None:
    def run(folder: Path, ckpt: Path | None = None) -> dict[str, Any]:
        return recorded(folder, "channel", "classifier", ckpt, model=Shuffled())

    expected = run(tmp_path / "whole")
    for epoch in (0, 1, 3):
        (tmp_path / str(epoch)).mkdir()
        shutil.copy(tmp_path / "whole" / "metrics.csv", tmp_path / str(epoch))
        found = run(tmp_path / str(epoch), tmp_path / "whole" / "epoch" / f"{epoch}.ckpt")
        assert differences(expected, found) == []
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        run(tmp_path / "middle", tmp_path / "whole" / "batch" / "6.ckpt")


def test_a_checkpoint_without_it_says_what_starts_anew(tmp_path: Path) -> None:
    plain = trainer(tmp_path, [], 1)
    plain.fit(Plain())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.warns(UserWarning, match="written without ExactResume"):
        fit(tmp_path / "new", "classifier", [], tmp_path / "plain.ckpt", model=Plain())


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": -1, "max_steps": 4 * EPOCHS},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 2},
        {"accumulate_grad_batches": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_loops(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    steps = 4 // options.get("accumulate_grad_batches", 1)
    expected = recorded(tmp_path / "whole", "channel", "classifier", **options)
    names = [
        *(f"epoch/{epoch}" for epoch in (0, 2)),
        *(f"batch/{step}" for step in (1, steps, 2 * steps + 1, 3 * steps)),
        f"validated/{1 if 'check_val_every_n_epoch' in options else 2}",
    ]
    for name in names:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "whole" / "metrics.csv", folder)
        found = recorded(
            folder, "channel", "classifier", tmp_path / "whole" / f"{name}.ckpt", **options
        )
        assert differences(expected, found) == [], name
