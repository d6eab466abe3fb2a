"""Draw real handwritten digits on coloured canvases, with boxes tight around the ink."""

from functools import cache
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SMALLEST, LARGEST = 0.16, 0.45  # height of a digit and its margin, fraction of the canvas
MOST_DIGITS = 6
_INK = 0.4  # opacity from which a pixel counts as ink
_CONTRAST = 80  # least distance between digit and background, grey levels of 255
_TRIES = 12  # positions tried for a digit before it is given up

Split = Literal["train", "val", "test"]


@cache
def handwriting(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the handwriting samples of a split: 60 % train, 20 % val, 20 % test of each digit.

    The division never changes, whatever the seed of a run: a model trained with one seed and
    tested with another has not seen the test samples.

    Returns:
        images (N, 8, 8) float32 in [0, 1] and digits (N,) int64.

    Source: E. Alpaydin, C. Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, DOI 10.24432/C50P49 (the 1797 samples scikit-learn ships).
    """
    bunch = load_digits()
    rng = np.random.default_rng(0)
    chosen = []
    for digit in range(10):
        samples = rng.permutation(np.flatnonzero(bunch.target == digit))
        first, second = int(0.6 * len(samples)), int(0.8 * len(samples))
        parts = {
            "train": samples[:first],
            "val": samples[first:second],
            "test": samples[second:],
        }
        chosen.append(parts[split])
    indices = np.sort(np.concatenate(chosen))
    return (bunch.images[indices] / 16).astype(np.float32), bunch.target[indices].astype(np.int64)


def ink_of(sample: np.ndarray, height: int, stretch: float = 1.0) -> np.ndarray:
    """Enlarge an 8 x 8 sample to opacities in [0, 1], cut to its ink.

    Every row and column at the edge of the result holds ink, so that its shape is the box.

    Args:
        sample: (8, 8) in [0, 1].
        height: Of the enlarged sample with its margin, in pixels; its ink is a little lower.
        stretch: Width relative to the natural one.
    """
    cut = np.pad(_trim(sample, 0.25), 1)  # the margin lets strokes fade out on all sides
    width = max(2, round(height * stretch * cut.shape[1] / cut.shape[0]))
    smooth = Image.fromarray(cut).resize((width, height), Image.Resampling.BICUBIC)
    # bicubic enlargement blurs; this gives strokes their edge back
    return _trim(np.clip((np.asarray(smooth) - 0.25) / 0.3, 0, 1), _INK)


def _trim(image: np.ndarray, level: float) -> np.ndarray:
    """Cut off the rows and columns at the edges that stay below `level`."""
    rows = np.flatnonzero(image.max(axis=1) >= level)
    columns = np.flatnonzero(image.max(axis=0) >= level)
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_canvas(
    samples: np.ndarray, digits: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one canvas with 1 to 6 digits that do not overlap.

    Scale, position, colour, contrast and noise are random; the background is a colour gradient.

    Args:
        samples: (N, 8, 8) handwriting to choose from.
        digits: (N,) which digit each sample is.
        size: Side of the canvas, in pixels.
        rng: Source of every decision.

    Returns:
        canvas (size, size, 3) uint8, digits (M,) int64, boxes (M, 4) float64 normalised to [0, 1].
    """
    canvas = _background(size, rng)
    taken = np.zeros((size, size), dtype=bool)
    labels, boxes = [], []
    for _ in range(rng.integers(1, MOST_DIGITS + 1)):
        chosen = int(rng.integers(len(samples)))
        height = max(6, round(size * rng.uniform(SMALLEST, LARGEST)))
        ink = ink_of(samples[chosen], height, rng.uniform(0.85, 1.2))
        place = _free_place(taken, ink.shape, rng)
        if place is None:
            continue
        top, left = place
        bottom, right = top + ink.shape[0], left + ink.shape[1]
        taken[top:bottom, left:right] = True
        patch = canvas[top:bottom, left:right]
        colour = _ink_colour(patch.mean(axis=(0, 1)), rng)
        patch += ink[:, :, None] * (colour - patch)
        labels.append(digits[chosen])
        boxes.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(1, 8)
    image = canvas.clip(0, 255).astype(np.uint8)
    return image, np.array(labels, dtype=np.int64), np.array(boxes).reshape(-1, 4) / size


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    base = _colour(rng)
    slope = rng.uniform(-30, 30, (2, 3))
    ramp = np.linspace(-0.5, 0.5, size)
    canvas: np.ndarray = base + ramp[:, None, None] * slope[0] + ramp[None, :, None] * slope[1]
    return np.asarray(canvas.clip(0, 255), dtype=np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    # a grey with a tint: brightness separates digit from background, as on most photographs
    return np.asarray((rng.uniform(0, 255) + rng.uniform(-60, 60, 3)).clip(0, 255))


def _ink_colour(background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(100):
        colour = _colour(rng)
        if abs(colour.mean() - background.mean()) >= _CONTRAST:
            break
    else:
        colour = np.full(3, 0.0 if background.mean() > 127 else 255.0)
    return np.asarray(colour, dtype=np.float32)


def _free_place(
    taken: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, int] | None:
    for _ in range(_TRIES):
        top = int(rng.integers(0, max(1, taken.shape[0] - shape[0] + 1)))
        left = int(rng.integers(0, max(1, taken.shape[1] - shape[1] + 1)))
        if not taken[top : top + shape[0], left : left + shape[1]].any():
            return top, left
    return None
