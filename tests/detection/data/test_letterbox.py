import numpy as np
import pytest
import torch

from lightning_prune.detection.data.letterbox import fit, letterbox


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640), (0, 80, 640, 480)),
        ((640, 480), (80, 0, 480, 640)),
        ((100, 100), (0, 0, 640, 640)),
        ((1, 3000), (0, 319, 640, 1)),
        ((1281, 853), (107, 0, 426, 640)),
    ],
)
def test_place_of_the_image(shape: tuple[int, int], expected: tuple[int, ...]) -> None:
    image = np.full((*shape, 3), 200, dtype=np.uint8)
    square = letterbox(image, 640)
    assert (square.left, square.top, square.width, square.height) == expected
    inside = np.zeros((640, 640), dtype=bool)
    left, top, width, height = expected
    inside[top : top + height, left : left + width] = True
    assert (np.asarray(square.image)[inside] == 200).all()
    assert (np.asarray(square.image)[~inside] == 114).all()


def test_tensor_and_array_agree() -> None:
    image = np.random.default_rng(0).integers(0, 255, (37, 61, 3), dtype=np.uint8)
    from_array = letterbox(image, 96, pad=0)
    from_tensor = letterbox(torch.from_numpy(image).permute(2, 0, 1), 96, pad=0)
    assert from_tensor.image.shape == (3, 96, 96)
    np.testing.assert_array_equal(
        np.asarray(from_tensor.image).transpose(1, 2, 0), np.asarray(from_array.image)
    )


def test_halving_averages_the_pixels() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:, 4:] = 200
    halved = fit(image, 4)
    # triangle filter of an antialiased halving: weights 1/8, 3/8, 3/8, 1/8
    np.testing.assert_allclose(halved[1, :, 0], [0, 25, 175, 200], atol=1)


def test_image_of_the_right_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 32, 3), dtype=np.uint8)
    assert fit(image, 32) is image


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((0, 8, 3), dtype=np.uint8),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
    ],
)
def test_refuses_other_images(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pass a uint8 array"):
        letterbox(image, 32)


def test_refuses_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="pad in 0-255"):
        letterbox(np.zeros((8, 8, 3), dtype=np.uint8), 32, pad=300)
