"""Splits, loaders, resuming and messages of the neural DataModules, on sessions in memory."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from lightning_prune.errors import DataError
from lightning_prune.neural.data.data_module import NeuralDataModule
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.functional.bits_per_spike import bits_per_spike
from tests.neural.data.recordings import session

TRIALS = (10,) * 9
WINDOW = 4  # frames; 7 windows a trial where all is valid


class Recorded(NeuralDataModule):
    def __init__(self, sessions: Sequence[NeuralSession], **options: Any) -> None:
        settings = {"frames": WINDOW, "batch_size": 8, "num_workers": 0, "seed": 0}
        settings |= {"val_fraction": 0.2, "test_fraction": 0.2}
        super().__init__(**{**settings, **options})
        self.given = list(sessions)
        self.loads = 0

    def load_sessions(self) -> list[NeuralSession]:
        self.loads += 1
        return self.given


def valid(cells: int) -> np.ndarray:
    return np.ones((90, cells), bool)


def data(**options: Any) -> Recorded:
    sessions = [
        session(0, "first", trials=TRIALS, valid=valid(3)),
        session(1, "second", cells=2, trials=TRIALS, valid=valid(2)),
    ]
    return Recorded(sessions, **options)


def keys(loader: Any) -> list[tuple[float, ...]]:
    """The behaviour at the last frame tells every window apart."""
    return [tuple(row) for inputs, _ in loader for row in inputs["behavior"].tolist()]


def test_a_model_can_ask_before_setup() -> None:
    module = data()
    assert module.cells == [3, 2]
    assert module.frame_rate == 120.0
    assert module.behavior_dim == 4
    assert module.frame_shape == (3, 2)
    assert module.label_sets == ["eye"]
    assert module.label_names == ["fixation", "saccade"]
    module.setup("fit")
    module.setup("test")
    module.train_dataloader()
    assert module.loads == 1


def test_splits_are_disjoint_and_complete() -> None:
    module = data()
    found = {
        split: keys(module.evaluation_loader(module.dataset(split), lambda b: b))
        for split in ("train", "val", "test")
    }
    together = [key for each in found.values() for key in each]
    assert {name: len(each) for name, each in found.items()} == {"train": 70, "val": 28, "test": 28}
    assert len(set(together)) == len(together) == 126
    assert keys(module.val_dataloader()) == found["val"]
    assert keys(module.test_dataloader()) == keys(module.predict_dataloader()) == found["test"]
    assert set(keys(module.train_dataloader())) == set(found["train"])
    assert set(keys(module.collection_dataloader())) == set(found["train"])


def test_strides() -> None:
    whole, thinned = data(), data(stride=3, val_stride=2)
    for split, step in [("train", 3), ("val", 2), ("test", 1)]:
        expected, found = whole.dataset(split), thinned.dataset(split)
        for index in (0, 1):
            ends = expected.end[expected.session == index]
            np.testing.assert_array_equal(found.end[found.session == index], ends[::step])


@pytest.mark.parametrize("stride", [2, 3, 7])
def test_epochs_take_turns_at_the_windows(stride: int) -> None:
    whole, thinned = data().dataset("train"), data(stride=stride).dataset("train")
    for index in (0, 1):
        ends = whole.end[whole.session == index]
        rows = np.flatnonzero(thinned.session == index)
        seen = [thinned._ends([(epoch, int(row)) for row in rows], rows) for epoch in range(stride)]
        for epoch, found in enumerate(seen):
            expected = ends[epoch::stride]
            np.testing.assert_array_equal(found[: len(expected)], expected)
            assert set(found[len(expected) :]) <= {ends[-1]}
        assert set(np.concatenate(seen)) == set(ends)


def test_turns_go_round_and_are_taken_by_training_only() -> None:
    module = data(stride=3, val_stride=2)
    windows = module.dataset("train")

    def movies(*keys: tuple[int, int] | int) -> torch.Tensor:
        return windows.__getitems__(keys)[0]["stimulus"]

    assert torch.equal(
        movies((1, 5), (2, 6)), torch.stack([movies((k, 5 + k - 1))[0] for k in (1, 2)])
    )
    assert torch.equal(movies((4, 5)), movies((1, 5)))
    assert not torch.equal(movies((1, 5)), movies((0, 5)))
    assert torch.equal(movies(5), movies((0, 5)))
    mixed = windows.shuffled(0)
    place = int(
        np.flatnonzero((mixed.end == windows.end[5]) & (mixed.session == windows.session[5]))[0]
    )
    assert torch.equal(mixed[1, place][0]["stimulus"], windows[1, 5][0]["stimulus"])
    assert module.dataset("val").turns is None
    assert module.dataset("test").turns is None
    assert data().dataset("train").turns is None


def test_collection_is_shuffled_once_in_the_same_way() -> None:
    module = data()
    first, again = (keys(module.collection_dataloader()) for _ in range(2))
    assert first == again == keys(data().collection_dataloader())
    sessions = torch.cat([inputs["session"] for inputs, _ in module.collection_dataloader()])
    assert 0 < sessions[:16].float().mean() < 1
    assert first != keys(data(seed=1).collection_dataloader())


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_windows(world_size: int) -> None:
    seen: dict[str, list[Any]] = {"train": [], "val": [], "collection": []}
    for rank in range(world_size):
        module = data()
        epochs = SimpleNamespace(current=SimpleNamespace(processed=0))
        module.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank,
            world_size=world_size,
            num_training_batches=3,
            fit_loop=SimpleNamespace(
                epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=epochs)
            ),
        )
        seen["train"] += keys(module.train_dataloader())
        seen["val"] += keys(module.val_dataloader())
        seen["collection"] += keys(module.collection_dataloader())
    alone = data()
    assert sorted(seen["val"]) == sorted(keys(alone.val_dataloader()))
    assert sorted(seen["collection"]) == sorted(keys(alone.collection_dataloader()))
    assert set(seen["train"]) == set(keys(alone.train_dataloader()))
    assert len(seen["train"]) == 70 + -70 % world_size


class Recorder(L.LightningModule):
    """Writes down what it was given; can fail in the middle of a step."""

    def __init__(self, fail_at: int | None = None, save: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trace: list[tuple[int, float, float]] = []
        self.fail_at, self.save = fail_at, save

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        if self.global_step == self.fail_at:
            raise RuntimeError("pulled the plug")
        movie = inputs["stimulus"].double().sum().item()
        self.trace.append((self.current_epoch, movie, targets["spikes"].double().sum().item()))
        return self.weight * inputs["behavior"].mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_train_batch_end(self, *_: Any) -> None:
        if self.save is not None and self.global_step == 13:
            self.trainer.save_checkpoint(self.save)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, module: Recorder, workers: int, path: Path | None = None) -> list[Any]:
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data(num_workers=workers), ckpt_path=path)
    return module.trace


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_inside_an_epoch_equals_the_uninterrupted_run(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "saved.ckpt"
    whole = fit(tmp_path, Recorder(), 0)
    assert len({entry[1] for entry in whole}) == len(whole) == 27
    failing = Recorder(fail_at=15, save=path)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        fit(tmp_path, failing, workers)
    assert failing.trace == whole[:15]
    assert fit(tmp_path, Recorder(), workers, path) == whole[13:]


def test_labels() -> None:
    first = data().given[0]
    photo = np.arange(90) // 30
    both = [
        NeuralSession(
            **{
                **vars(each),
                "labels": {**each.labels, "photo": photo},
                "label_names": {**each.label_names, "photo": list("abc")},
            }
        )
        for each in data().given
    ]
    module = Recorded(both, labels="photo")
    _, targets = next(iter(module.val_dataloader()))
    assert module.label_names == ["a", "b", "c"]
    assert targets["label"].tolist() == photo[module.dataset("val").end[:8]].tolist()
    with pytest.raises(DataError, match=r"labels=photo: no such label set .* there are eye"):
        Recorded([both[0], first], labels="photo").setup("fit")
    bare = session(0, trials=TRIALS, labels_eye=None)
    module = Recorded([first, bare])
    assert (module.label_sets, module.label_names) == ([], [])
    assert "label" not in next(iter(module.val_dataloader()))[1]


def test_a_session_may_lack_the_last_classes_but_not_name_them_differently() -> None:
    first = data().given[0]

    def named(*names: str) -> NeuralSession:
        return NeuralSession(**{**vars(first), "label_names": {"eye": list(names)}})

    assert Recorded([named("a", "b"), named("a", "b", "c")]).label_names == ["a", "b", "c"]
    assert Recorded([named("a", "b"), named("b", "a")]).label_sets == []


def silent() -> Recorded:
    spikes = session(0, trials=TRIALS).spikes.copy()
    spikes[:, [0, 2]] = 0
    return Recorded([session(0, "first", trials=TRIALS, spikes=spikes), data().given[1]])


def test_silent_cells_are_refused_or_left_out() -> None:
    with pytest.raises(DataError, match=r"training windows of first: cells 0, 2\. .*drop_silent"):
        silent().setup("fit")
    module = silent()
    module.drop_silent = True
    with pytest.warns(UserWarning, match="first: cells 0, 2. They are left out"):
        assert module.cells == [1, 2]
    _, targets = module.dataset("train")[0]
    expected = module.given[0].spikes[module.dataset("train").end[0], 1]
    assert targets["spikes"].tolist() == [float(expected) * bool(targets["valid"][0]), 0.0]
    module = silent()
    module.given[0].spikes[:] = 0
    module.drop_silent = True
    with pytest.raises(DataError, match="first: no cell has a spike"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"behavior": np.ones((90, 5))}, "columns of `behavior` is 5, but 4 in first"),
        ({"side": (4, 2)}, r"frame size of `stimulus` is \(4, 2\), but \(3, 2\) in first"),
        ({"stimulus": np.ones((90, 3, 2))}, "type of `stimulus` is float64, but uint8 in first"),
        ({"frame_rate": np.float64(60)}, "`frame_rate` is 60.0, but 120.0 in first"),
    ],
)
def test_sessions_must_agree(change: dict[str, Any], words: str) -> None:
    other = session(1, "second", trials=TRIALS, **change)
    with pytest.raises(DataError, match=f"second: {words}"):
        Recorded([data().given[0], other]).setup("fit")


def test_no_session() -> None:
    with pytest.raises(DataError, match="no session"):
        _ = Recorded([]).cells


def test_attainable_is_the_bits_per_spike_of_the_true_rates() -> None:
    module = data()
    each = []
    for index, whole in enumerate(module.given):
        windows = module.dataset("test")
        ends = windows.end[windows.session == index]
        assert whole.rate is not None
        arrays = (whole.rate[ends], whole.spikes[ends], whole.valid[ends])
        each.append(bits_per_spike(*map(torch.tensor, arrays)))
    found = module.attainable_per_cell()
    assert found is not None
    for value, expected in zip(found, each, strict=True):
        torch.testing.assert_close(value, expected)
    mean = np.mean([value.clamp(min=0).mean().item() for value in each])
    assert module.attainable_bits_per_spike("test") == pytest.approx(mean)
    unknown = Recorded([module.given[0], session(1, trials=TRIALS, rate=None)])
    assert unknown.attainable_bits_per_spike() is None


def test_mean_counts_are_those_of_training() -> None:
    module = data()
    windows = module.dataset("train")
    for index, found in enumerate(module.mean_counts):
        ends = windows.end[windows.session == index]
        expected = module.given[index].spikes[ends].mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"frames": 0}, ValueError, "frames=0: pass an integer of at least 1"),
        ({"stride": 0}, ValueError, "stride=0: pass an integer of at least 1"),
        ({"val_stride": 1.5}, ValueError, "val_stride=1.5: pass an integer"),
        (
            {"val_fraction": 0.0},
            ValueError,
            r"val_fraction=0.0: pass a number in \(0, 1\), a fraction of the trials",
        ),
        ({"val_fraction": "some"}, ValueError, "val_fraction='some': pass a number"),
        ({"test_fraction": 1}, ValueError, "test_fraction=1: pass a number in"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, ValueError, "leave nothing to train on"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        data(**options)
