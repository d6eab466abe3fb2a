import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_prune.data.sampler import Draw, PermutationSampler
from lightning_prune.detection.data.augment import Augmentation
from lightning_prune.detection.data.collate import collate
from lightning_prune.detection.data.dataset import DetectionDataset
from lightning_prune.detection.data.digits import DigitCanvases

ALL = list(range(10))
STRONG = Augmentation(0.5, 5.0, 0.1, 0.3, 2.0, 0.1, 0.5, 0.4, 0.5, 0.5)


@pytest.fixture(scope="module")
def source() -> DigitCanvases:
    return DigitCanvases("train", 8, 64, 0, ALL)


def test_augmentation_depends_on_seed_epoch_and_index_only(source: DigitCanvases) -> None:
    dataset = DetectionDataset(source, 64, STRONG, seed=1)
    again = DetectionDataset(source, 64, STRONG, seed=1)
    reference = dataset[Draw(2, 3)]
    dataset[Draw(0, 5)]
    np.random.seed(0)
    torch.manual_seed(9)
    assert all(map(torch.equal, again[Draw(2, 3)], reference))
    assert not torch.equal(dataset[Draw(3, 3)][0], reference[0])
    assert not torch.equal(DetectionDataset(source, 64, STRONG, seed=2)[2, 3][0], reference[0])


def test_plain_index_is_epoch_zero(source: DigitCanvases) -> None:
    dataset = DetectionDataset(source, 64, STRONG)
    assert all(map(torch.equal, dataset[4], dataset[Draw(0, 4)]))


@pytest.mark.parametrize("workers", [0, 1])
def test_mosaic_ends_with_its_epoch_in_living_workers(source: DigitCanvases, workers: int) -> None:
    dataset = DetectionDataset(source, 64, Augmentation(mosaic=1.0), mosaic_ends=2)
    plain = torch.stack([DetectionDataset(source, 64)[index][0] for index in range(8)])
    sampler = PermutationSampler(dataset, 0)
    loader = DataLoader(
        dataset,
        batch_size=8,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    untouched = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        order = sampler.order(epoch)
        ((images, _),) = loader
        untouched.append(torch.equal(images, plain[order].float() / 255))
    assert untouched == [False, False, True, True]


def test_pickles_for_spawned_workers(source: DigitCanvases) -> None:
    dataset = DetectionDataset(source, 64, STRONG, cache=True)
    copy = pickle.loads(pickle.dumps(dataset))
    assert all(map(torch.equal, copy[1, 2], dataset[1, 2]))


def test_cache_is_shared_by_variants(source: DigitCanvases) -> None:
    dataset = DetectionDataset(source, 32, cache=True)
    assert replace(dataset, augmentation=STRONG)._images is dataset._images
    assert all(map(torch.equal, dataset[3], DetectionDataset(source, 32)[3]))


def test_boxes_stay_in_the_image(source: DigitCanvases) -> None:
    dataset = DetectionDataset(source, 64, STRONG)
    for epoch in range(6):
        for index in range(8):
            image, labels, boxes = dataset[epoch, index]
            assert image.shape == (3, 64, 64)
            assert len(labels) == len(boxes)
            assert boxes.dtype == torch.float32
            low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
            assert (low >= -1e-6).all()
            assert (high <= 1 + 1e-6).all()
