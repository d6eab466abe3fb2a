"""The batches of a resumed run are those of the run that was never interrupted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.sampler import PermutationSampler
from lightning_prune.detection.data.dataset import DetectionDataset
from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.runs.resume.exact_resume import ExactResume

EPOCHS, BATCHES = 3, 5
Trace = list[tuple[int, int, float, float]]


def data(**options: Any) -> DigitsDetectionDataModule:
    settings = {
        "image_size": 32,
        "train_images": 18,
        "val_images": 4,
        "batch_size": 4,
        "mosaic": 0.5,
        "close_mosaic": 1,
        "translate": 0.1,
        "hsv_v": 0.3,
    }
    return DigitsDetectionDataModule(**{**settings, **options})


class Recorder(L.LightningModule):
    """Writes down which batch it was given; can fail in the middle of a step."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trace: Trace = []
        self.fail_at = fail_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, targets = batch
        if self.global_step == self.fail_at:
            raise RuntimeError("pulled the plug")
        entry = (images.double().sum().item(), targets["box"].double().sum().item())
        self.trace.append((self.current_epoch, batch_idx, *entry))
        return self.weight * images.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/images", float(len(batch[0])), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(L.Callback):
    """Saves a checkpoint in one hook when `when` is true."""

    def __init__(self, hook: str, when: Callable[[L.Trainer], bool], path: Path) -> None:
        def save(trainer: L.Trainer, *_: Any, **__: Any) -> None:
            if not trainer.sanity_checking and when(trainer):
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def fit(
    folder: Path, module: Recorder, workers: int, callbacks: list[L.Callback], **options: Any
) -> Trace:
    ckpt_path, limit = options.pop("ckpt_path", None), options.pop("limit", 1.0)
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        callbacks=callbacks,
        default_root_dir=folder,
        limit_train_batches=limit,
        **options,
    )
    trainer.fit(module, datamodule=data(num_workers=workers), ckpt_path=ckpt_path)
    return module.trace


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    trace = fit(tmp_path_factory.mktemp("whole"), Recorder(), 0, [])
    assert len(trace) == EPOCHS * BATCHES
    assert len({entry[2] for entry in trace}) == len(trace)
    return trace


def test_workers_change_nothing(tmp_path: Path, uninterrupted: Trace) -> None:
    assert fit(tmp_path, Recorder(), 1, []) == uninterrupted


SAVES: dict[str, tuple[str, Callable[[L.Trainer], bool], int]] = {
    "after the first batch": ("on_train_batch_end", lambda t: t.global_step == 1, 1),
    "mid-epoch": ("on_train_batch_end", lambda t: t.global_step == 7, 7),
    "last batch of an epoch": ("on_train_batch_end", lambda t: t.global_step == 10, 10),
    "validation": ("on_validation_end", lambda t: t.current_epoch == 1, 10),
    "end of an epoch": ("on_train_epoch_end", lambda t: t.current_epoch == 0, 5),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("moment", SAVES)
def test_resume_continues_with_the_next_batch(
    tmp_path: Path, uninterrupted: Trace, moment: str, workers: int
) -> None:
    hook, when, done = SAVES[moment]
    path = tmp_path / "saved.ckpt"
    fit(tmp_path, Recorder(), workers, [SaveAt(hook, when, path)])
    assert fit(tmp_path, Recorder(), workers, [], ckpt_path=path) == uninterrupted[done:]


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_after_a_failure_inside_a_step(
    tmp_path: Path, uninterrupted: Trace, workers: int
) -> None:
    checkpoint = ModelCheckpoint(tmp_path, save_on_exception=True, save_top_k=0)
    failing = Recorder(fail_at=8)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        fit(tmp_path, failing, workers, [checkpoint])
    assert failing.trace == uninterrupted[:8]
    (path,) = tmp_path.glob("*.ckpt")
    state = torch.load(path, weights_only=True)["loops"]["fit_loop"]["state_dict"]
    (position,) = state["combined_loader"]
    assert (position["epoch"], position["batch"]) == (1, 3)
    resumed = [ModelCheckpoint(tmp_path, save_top_k=0)]
    assert fit(tmp_path, Recorder(), workers, resumed, ckpt_path=path) == uninterrupted[8:]


def test_resume_twice(tmp_path: Path, uninterrupted: Trace) -> None:
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    fit(
        tmp_path, Recorder(), 0, [SaveAt("on_train_batch_end", lambda t: t.global_step == 6, first)]
    )
    save = SaveAt("on_train_batch_end", lambda t: t.global_step == 8, second)
    fit(tmp_path, Recorder(), 0, [save], ckpt_path=first)
    assert fit(tmp_path, Recorder(), 0, [], ckpt_path=second) == uninterrupted[8:]


@pytest.mark.filterwarnings("ignore:.* lists are in no checkpoint:UserWarning")
@pytest.mark.parametrize(
    ("left_at", "saved_at", "epoch"),
    [
        # Until the first batch the counts of a resumed run are those of the epoch before ...
        ("end of an epoch", "on_train_epoch_start", 1),
        # ... and after its last batch the loader stands in the next one.
        ("last batch of an epoch", "on_validation_end", 1),
        ("last batch of an epoch", "on_train_epoch_end", 1),
    ],
)
def test_resumed_run_saves_the_position_of_the_uninterrupted_one(
    tmp_path: Path, uninterrupted: Trace, left_at: str, saved_at: str, epoch: int
) -> None:
    left, whole, resumed = (tmp_path / f"{name}.ckpt" for name in ("left", "whole", "resumed"))
    hook, when, done = SAVES[left_at]

    def saves(path: Path) -> list[L.Callback]:
        # It begins the iterator again.
        return [ExactResume(), SaveAt(saved_at, lambda t: t.current_epoch == epoch, path)]

    fit(tmp_path, Recorder(), 0, [*saves(whole), SaveAt(hook, when, left)])
    trace = fit(tmp_path, Recorder(), 0, saves(resumed), ckpt_path=left)
    assert trace == uninterrupted[done:]
    positions = []
    for path in (whole, resumed):
        loops = torch.load(path, weights_only=True)["loops"]["fit_loop"]
        (position,) = loops["state_dict"]["combined_loader"]
        positions.append((position["epoch"], position["batch"]))
    assert positions[0] == positions[1] == (done // BATCHES, 0)


def test_fewer_batches_than_there_are(tmp_path: Path) -> None:
    """With limit_train_batches an epoch is complete before the loader is."""
    path = tmp_path / "saved.ckpt"
    whole = fit(tmp_path, Recorder(), 0, [], limit=3)
    save = SaveAt("on_train_epoch_end", lambda t: t.current_epoch == 0, path)
    fit(tmp_path, Recorder(), 0, [save], limit=3)
    assert fit(tmp_path, Recorder(), 0, [], limit=3, ckpt_path=path) == whole[3:]


def test_checkpoint_without_loader_state_starts_the_epoch_in_its_order(
    tmp_path: Path, uninterrupted: Trace
) -> None:
    path = tmp_path / "saved.ckpt"
    save = SaveAt("on_train_epoch_end", lambda t: t.current_epoch == 1, path)
    fit(tmp_path, Recorder(), 0, [save])
    content = torch.load(path, weights_only=True)
    del content["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    torch.save(content, path)
    assert fit(tmp_path, Recorder(), 0, [], ckpt_path=path) == uninterrupted[10:]


def test_overfit_batches_replaces_the_sampler(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="requested to overfit"):
        trace = fit(tmp_path, Recorder(), 0, [], overfit_batches=1, limit_val_batches=0)
    assert len(trace) == EPOCHS
    assert len({entry[2:] for entry in trace}) == 1


def loader(seed: int = 0, batch_size: int = 4, **options: Any) -> ResumableLoader:
    module = data(seed=seed, batch_size=batch_size)
    dataset: DetectionDataset = module.train_dataloader().dataset  # type: ignore[assignment]
    sampler = PermutationSampler(dataset, seed)
    collate_fn = module.train_dataloader().collate_fn
    return ResumableLoader(
        dataset, sampler=sampler, batch_size=batch_size, collate_fn=collate_fn, **options
    )


def sums(batches: Iterator[Any]) -> list[float]:
    return [images.double().sum().item() for images, _ in batches]


def test_without_a_trainer_handed_out_batches_count() -> None:
    first, second = loader(), loader()
    whole = sums(iter(loader()))
    running = iter(first)
    next(running)
    next(running)
    second.load_state_dict(first.state_dict())
    assert sums(iter(second)) == whole[2:]
    assert second.state_dict() | {"epoch": 1, "batch": 0} == second.state_dict()
    assert sums(iter(second)) == whole


def test_announced_epoch_is_not_begun() -> None:
    begun = loader()
    list(begun)
    begun.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert begun.position() == (1, 0)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(loader())
    list(data().collection_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("change", "name"), [({"seed": 1}, "seed"), ({"batch_size": 6}, "batch")])
def test_position_of_another_order_is_refused(change: dict[str, int], name: str) -> None:
    saved = loader()
    next(iter(saved))
    other = loader(**change)
    with pytest.warns(UserWarning, match=f"{name}.* was .*the order of samples starts again"):
        other.load_state_dict(saved.state_dict())
    assert sums(iter(other)) == sums(iter(loader(**change)))


def test_other_samplers_pass_through() -> None:
    dataset = loader().dataset
    plain = ResumableLoader(dataset, sampler=torch.utils.data.SequentialSampler(dataset))
    plain.load_state_dict(plain.state_dict())
    assert plain.state_dict() == {"epoch": 0, "batch": 0}
