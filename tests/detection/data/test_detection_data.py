from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_prune.detection.data.digits import DigitsDetectionDataModule


def module(**options: Any) -> DigitsDetectionDataModule:
    settings = {"image_size": 32, "train_images": 11, "val_images": 5, "batch_size": 4}
    return DigitsDetectionDataModule(**{**settings, **options})


def trainer(**values: Any) -> Any:
    counters = SimpleNamespace(current=SimpleNamespace(processed=0))
    loop = SimpleNamespace(epoch_progress=counters)
    defaults = {"global_rank": 0, "world_size": 1, "max_epochs": 20, "fit_loop": loop}
    return SimpleNamespace(**{**defaults, **values})


@pytest.mark.parametrize(
    ("max_epochs", "close", "ends"),
    [(20, 10, 10), (5, 10, 0), (20, 0, 20), (-1, 10, None), (None, 10, None)],
)
def test_mosaic_ends_before_the_last_epochs(
    max_epochs: int | None, close: int, ends: int | None
) -> None:
    data = module(mosaic=1.0, close_mosaic=close)
    data.trainer = trainer(max_epochs=max_epochs)
    assert data.train_dataloader().dataset.mosaic_ends == ends  # type: ignore[attr-defined]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_images(world_size: int) -> None:
    seen: dict[str, list[float]] = {"train": [], "val": [], "collection": []}
    for rank in range(world_size):
        data = module()
        data.trainer = trainer(global_rank=rank, world_size=world_size)
        for name, loader in [
            ("train", data.train_dataloader()),
            ("val", data.val_dataloader()),
            ("collection", data.collection_dataloader()),
        ]:
            assert isinstance(loader.sampler, torch.utils.data.DistributedSampler)
            for images, _ in loader:
                seen[name] += images.double().sum(dim=(1, 2, 3)).tolist()
    alone = module()
    for name, count in [("train", 11), ("val", 5), ("collection", 11)]:
        assert len(set(seen[name])) == count
        repeated = -count % world_size if name == "train" else 0
        assert len(seen[name]) == count + repeated
    dataset = alone.dataset("train")
    expected = {(dataset[i][0].float() / 255).double().sum().item() for i in range(11)}
    assert set(seen["collection"]) == expected


def test_splits_are_loaded_once() -> None:
    data = module()
    data.setup("fit")
    before = data.dataset("val")
    data.setup("validate")
    assert data.dataset("val") is before
    assert "test" not in data._datasets


def test_missing_test_split_is_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_prune.data.split_data.rank_zero_info", said.append)

    class WithoutTest(DigitsDetectionDataModule):
        @property
        def splits(self) -> tuple[str, ...]:
            return ("train", "val")

    data = WithoutTest(32, 4, 3, batch_size=4)
    data.setup("test")
    loader = data.test_dataloader()
    assert "no test split: testing on the validation split" in said[0]
    assert loader.dataset is data.dataset("val")
