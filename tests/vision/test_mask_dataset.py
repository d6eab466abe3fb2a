from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_prune.data.sampler import Draw
from lightning_prune.vision.mask_augment import MaskAugmentation
from lightning_prune.vision.mask_dataset import MaskDataset, MaskRecord, collate
from lightning_prune.vision.mask_file import MaskError, MaskReading
from tests.vision.mask_folders import scene, write_folder

STRONG = MaskAugmentation(0.5, 0.2, 20.0, 0.5, 0.5, 0.4, 0.4)


@pytest.fixture
def records(tmp_path: Path) -> list[MaskRecord]:
    folder = write_folder(tmp_path) / "train"
    names = [path.name for path in sorted((folder / "images").iterdir())]
    return [MaskRecord(folder / "images" / name, folder / "masks" / name) for name in names]


def test_evaluation_shows_the_files(records: list[MaskRecord]) -> None:
    image, mask = MaskDataset(records, MaskReading(3), 32)[2]
    expected = scene(2 + 100 * len("train"))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected[0])
    assert np.array_equal(mask.numpy(), expected[1])
    assert (image.dtype, mask.dtype) == (torch.uint8, torch.int64)


def test_augmentation_depends_on_seed_epoch_and_index_only(records: list[MaskRecord]) -> None:
    dataset, again, other = (
        MaskDataset(records, MaskReading(3), 48, STRONG, seed) for seed in (1, 1, 2)
    )
    reference = dataset[Draw(2, 3)]
    dataset[Draw(0, 5)]
    np.random.seed(0)
    torch.manual_seed(9)
    assert all(map(torch.equal, again[Draw(2, 3)], reference))
    assert not torch.equal(dataset[Draw(3, 3)][1], reference[1])
    assert not torch.equal(other[Draw(2, 3)][1], reference[1])


def test_workers_change_nothing(records: list[MaskRecord]) -> None:
    dataset = MaskDataset(records, MaskReading(3), 32, STRONG)
    alone, several = (
        list(DataLoader(dataset, 3, collate_fn=collate, num_workers=workers)) for workers in (0, 2)
    )
    for (images, masks), (others, their_masks) in zip(alone, several, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(masks, their_masks)


def test_padding_and_ignored_pixels_have_the_ignored_value(records: list[MaskRecord]) -> None:
    mask = MaskDataset(records, MaskReading(3, ignore_index=77), 64, STRONG)[0][1]
    assert set(mask.unique().tolist()) <= {0, 1, 2, 77}
    assert (mask == 77).any()


def test_grey_images(records: list[MaskRecord]) -> None:
    image, _ = MaskDataset(records, MaskReading(3), 32, channels=1)[0]
    assert image.shape == (1, 32, 32)


def test_a_mask_that_changed_after_the_checks_stops_the_run(records: list[MaskRecord]) -> None:
    with pytest.raises(MaskError, match=r"0.png: 2, with 2 classes"):
        MaskDataset(records, MaskReading(2), 32)[0]
