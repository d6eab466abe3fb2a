from dataclasses import replace

import numpy as np
import pytest

from lightning_prune.vision.mask_augment import (
    PAD_VALUE,
    MaskAugmentation,
    MaskView,
    augment,
    fit,
    letterbox,
)
from lightning_prune.vision.mask_file import IGNORED

MOVES = MaskAugmentation(scale=0.5, translate=0.2, degrees=45.0, fliplr=0.5, flipud=0.5)


def view(height: int = 60, width: int = 80) -> MaskView:
    """Three bands, whose grey value says their class: 0, 120, 240."""
    mask = np.zeros((height, width), dtype=np.int32)
    mask[:, width // 3 :], mask[height // 2 :, 2 * width // 3 :] = 1, 2
    return MaskView(np.repeat((120 * mask)[:, :, None], 3, axis=2).astype(np.uint8), mask)


def disagreement(found: MaskView) -> float:
    """Fraction of the pixels that count whose grey value is nearer to that of another class."""
    valid = found.mask != IGNORED
    told = np.rint(found.image[:, :, 0] / 120)
    return float((told != found.mask)[valid].mean())


def test_letterbox_keeps_the_ratio_and_ignores_the_padding() -> None:
    found = letterbox(view(), 40)
    assert found.image.shape == (40, 40, 3)
    assert (found.mask[:5] == IGNORED).all()
    assert (found.mask[35:] == IGNORED).all()
    assert (found.mask[5:35] != IGNORED).all()
    assert (found.image[:5] == PAD_VALUE).all()
    assert disagreement(found) < 0.03


def test_an_image_that_fits_is_left_as_it_is() -> None:
    given = view()
    assert fit(given, 80) is given


@pytest.mark.parametrize("size", [32, 96])
def test_mask_and_image_are_moved_alike(size: int) -> None:
    for seed in range(20):
        found = augment(view(), size, MOVES, np.random.default_rng(seed))
        assert found.image.shape == (size, size, 3)
        assert found.mask.dtype == np.int32
        assert set(np.unique(found.mask)) <= {IGNORED, 0, 1, 2}
        # Only at borders, where colours are mixed.
        assert disagreement(found) < 0.12


def test_padding_has_no_class_and_its_colour() -> None:
    settings = MaskAugmentation(scale=0.9, translate=0.5)
    found = augment(view(), 64, settings, np.random.default_rng(1))
    away = found.mask == IGNORED
    assert away.any()
    inner = away[:-1, :-1] & away[1:, 1:] & away[:-1, 1:] & away[1:, :-1]
    assert (found.image[:-1, :-1][inner] == PAD_VALUE).mean() > 0.98


def test_the_generator_decides_all() -> None:
    first, second, other = (
        augment(view(), 64, replace(MOVES, brightness=0.4, saturation=0.4), rng)
        for rng in map(np.random.default_rng, (0, 0, 1))
    )
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)
    assert not np.array_equal(first.mask, other.mask)


def test_nothing_is_varied_where_all_is_off() -> None:
    found = augment(view(), 40, MaskAugmentation(), np.random.default_rng(0))
    expected = letterbox(view(), 40)
    assert np.array_equal(found.image, expected.image)
    assert np.array_equal(found.mask, expected.mask)


def test_flips_are_exact() -> None:
    found = augment(view(), 40, MaskAugmentation(fliplr=1, flipud=1), np.random.default_rng(0))
    expected = letterbox(view(), 40)
    assert np.array_equal(found.mask, expected.mask[::-1, ::-1])
    assert np.array_equal(found.image, expected.image[::-1, ::-1])


def test_brightness_leaves_the_mask() -> None:
    settings = MaskAugmentation(brightness=0.5, saturation=0.5)
    found = augment(view(), 40, settings, np.random.default_rng(0))
    expected = letterbox(view(), 40)
    assert np.array_equal(found.mask, expected.mask)
    assert not np.array_equal(found.image, expected.image)
