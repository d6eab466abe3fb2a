"""Crops: the evaluated centre against torchvision's transforms, random crops by what they cover."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from lightning_prune.vision.image_folder_views import (
    EvaluationView,
    RandomView,
    _crop,
    evaluation_view,
    random_view,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (9, 9), (300, 201)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_centre_is_that_of_torchvision(shape: tuple[int, int], interpolation: str):
    image = noise(*shape)
    reference = transforms.Compose([
        transforms.Resize(36, InterpolationMode(interpolation)),  # int(32 / 0.875)
        transforms.CenterCrop(32),
        transforms.PILToTensor(),
    ])(Image.fromarray(image))  # fmt: skip
    found = evaluation_view(image, EvaluationView(32, 0.875, interpolation))  # type: ignore[arg-type]
    assert torch.equal(found, reference)


def test_squashed_images_keep_their_borders():
    image = noise(40, 70)
    image[:, 0] = image[:, -1] = 0
    found = evaluation_view(image, EvaluationView(40, squash=True, interpolation="nearest"))
    assert found.shape == (3, 40, 40)
    assert not found[:, :, 0].any()


def test_random_crops_keep_to_area_and_ratio():
    rng = np.random.default_rng(0)
    view = RandomView(scale=(0.2, 0.5), ratio=(0.5, 2.0))
    found = np.array([_crop(200, 300, view, rng) for _ in range(500)])
    top, left, height, width = found.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 300).all()
    area, ratio = height * width / 60000, width / height
    assert 0.19 < area.min() < 0.22
    assert 0.48 < area.max() < 0.51
    assert 0.49 < ratio.min() < 0.6
    assert 1.7 < ratio.max() < 2.02
    assert len(np.unique(top)) > 50


def test_where_no_crop_fits_it_is_the_largest_centre():
    rng = np.random.default_rng(0)
    assert _crop(10, 1000, RandomView(scale=(0.9, 1.0)), rng) == (0, 493, 10, 13)
    assert _crop(1, 1, RandomView(scale=(0.1, 0.2)), rng) == (0, 0, 1, 1)


def test_flips_mirror_the_crop():
    image = noise(16, 16)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}

    def of(fliplr: float, flipud: float) -> torch.Tensor:
        view = RandomView(**whole, fliplr=fliplr, flipud=flipud)  # type: ignore[arg-type]
        return random_view(image, 16, "nearest", view, np.random.default_rng(1))

    plain = of(0, 0)
    assert torch.equal(plain, torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(of(1, 0), plain.flip(2))
    assert torch.equal(of(0, 1), plain.flip(1))
