"""Grey photographs for simulated eyes to look at. No download."""

from functools import cache

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter
from sklearn.datasets import load_sample_images

HEIGHT, WIDTH = 240, 320  # of every photograph, in pixels
MOST = 64
_MAGNIFICATIONS = (0.75, 1.0, 1.4, 2.0)
_TRIES = 12
_MEAN, _CONTRAST = 127.0, 48.0
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@cache
def photographs(count: int) -> np.ndarray:
    """Return parts of scikit-learn's two sample photographs, at several magnifications, mirrored.

    Of a few random places the one with the most structure is cut out: much of the photographs is
    plain sky. Grey values have mean 127 and a standard deviation near 48.

    Args:
        count: Number of photographs, 1-64; photograph i does not depend on it.

    Returns:
        (count, 240, 320) uint8, not writable.

    Raises:
        ValueError: another count.

    >>> photographs(2).shape
    (2, 240, 320)
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"{count} photographs: pass 1-{MOST}")
    originals = [Image.fromarray(_grey(image)) for image in load_sample_images().images]
    result = np.empty((count, HEIGHT, WIDTH), dtype=np.uint8)
    for index in range(count):
        original = originals[index % len(originals)]
        factor = _MAGNIFICATIONS[index // len(originals) % len(_MAGNIFICATIONS)]
        size = round(original.width * factor), round(original.height * factor)
        large = np.asarray(original.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
        part = _structured_part(large, np.random.default_rng(index))
        if index // len(originals) // len(_MAGNIFICATIONS) % 2:
            part = part[:, ::-1]
        values = (part - part.mean()) / part.std() * _CONTRAST + _MEAN
        result[index] = values.round().clip(0, 255)
    result.flags.writeable = False
    return result


def structure(photograph: np.ndarray, width: int = 15) -> np.ndarray:
    """Return the standard deviation of the grey values around every pixel, (H, W) float64."""
    values = photograph.astype(np.float64)
    mean = uniform_filter(values, width)
    deviation: np.ndarray = np.sqrt((uniform_filter(values**2, width) - mean**2).clip(0))
    return deviation


def _grey(image: np.ndarray) -> np.ndarray:
    grey: np.ndarray = (image @ _GREY).round().astype(np.uint8)
    return grey


def _structured_part(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tops = rng.integers(0, image.shape[0] - HEIGHT + 1, _TRIES)
    lefts = rng.integers(0, image.shape[1] - WIDTH + 1, _TRIES)
    parts = [
        image[top : top + HEIGHT, left : left + WIDTH]
        for top, left in zip(tops, lefts, strict=True)
    ]
    return max(parts, key=lambda part: float(structure(part)[::8, ::8].mean()))
