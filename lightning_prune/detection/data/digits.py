"""The default data set: real handwritten digits to be found on canvases. No download."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from lightning_prune.annotations import Such
from lightning_prune.arguments import Count, ImageSize, NonNegative, Workers
from lightning_prune.detection.data.augment import Augmentation
from lightning_prune.detection.data.dataset import ImageSource
from lightning_prune.detection.data.detection_data import DetectionDataModule
from lightning_prune.detection.data.digit_canvas import Split, draw_canvas, handwriting
from lightning_prune.detection.data.with_strengths import with_strengths
from lightning_prune.validation import validated

# No flips: a mirrored digit is another sign.
DIGITS = Augmentation(translate=0.05, scale=0.15, hsv_v=0.2)
_STREAMS: dict[str, int] = {"train": 0, "val": 1, "test": 2}


class DigitCanvases:
    """Canvases drawn once and held in memory as bytes.

    Args:
        split: Which handwriting to use.
        count: Number of canvases.
        size: Side of a canvas, in pixels.
        seed: Of everything that is random; canvas i does not depend on `count`.
        classes: Digits that appear; they become the classes 0, 1, ... in this order.
    """

    def __init__(
        self, split: Split, count: int, size: int, seed: int, classes: Sequence[int]
    ) -> None:
        samples, digits = handwriting(split)
        wanted = np.isin(digits, classes)
        samples, digits = samples[wanted], digits[wanted]
        class_of = np.zeros(10, dtype=np.int64)
        class_of[list(classes)] = np.arange(len(classes))
        self.canvases = np.empty((count, size, size, 3), dtype=np.uint8)
        self.labels: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []
        for index in range(count):
            rng = np.random.default_rng((seed, _STREAMS[split], index))
            self.canvases[index], found, boxes = draw_canvas(samples, digits, size, rng)
            self.labels.append(class_of[found])
            self.boxes.append(boxes)

    def __len__(self) -> int:
        """Count the canvases."""
        return len(self.canvases)

    def image(self, index: int) -> np.ndarray:
        """Return canvas `index`: (size, size, 3) uint8 RGB."""
        return np.asarray(self.canvases[index])

    def objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (M,) and boxes (M, 4) of canvas `index`."""
        return self.labels[index], self.boxes[index]


def _are_digits(classes: Sequence[int]) -> bool:
    return 0 < len(classes) == len({*classes} & {*range(10)})


class DigitsDetectionDataModule(DetectionDataModule):
    """Handwritten digits of scikit-learn at random scale, position, contrast and noise.

    Training, validation and test canvases show disjoint handwriting samples. A canvas holds one to
    six digits, 20-60 pixels high at 160 pixels; boxes are tight around the ink.

    Args:
        image_size: Side of a canvas, in pixels; a multiple of 32.
        train_images: Number of training canvases.
        val_images: Number of validation canvases.
        test_images: Number of test canvases.
        batch_size: Canvases per batch and process.
        num_workers: Worker processes per loader; 0 is fastest, the canvases are in memory.
        seed: Of the canvases, the order and the augmentation.
        classes: Digits that appear (0-9, each once), or None: all ten.
        close_mosaic: Number of last epochs without mosaic.
        strengths: Those of `Augmentation`, each by its own name (`mosaic=0.5`).

    Raises:
        ValueError: an argument out of range.
    """

    @validated
    @with_strengths(DIGITS)
    def __init__(
        self,
        image_size: ImageSize = 160,
        train_images: Count = 1000,
        val_images: Count = 200,
        test_images: Count = 200,
        batch_size: Count = 16,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        classes: Annotated[
            list[int] | None, Such(_are_digits, "each digit of 0-9 once, and at least one")
        ] = None,
        close_mosaic: NonNegative = 10,
        **strengths: float,
    ) -> None:
        augmentation = replace(DIGITS, **strengths)
        super().__init__(image_size, batch_size, num_workers, seed, augmentation, close_mosaic)
        self.counts = {"train": train_images, "val": val_images, "test": test_images}
        self.classes = list(range(10)) if classes is None else list(classes)

    @property
    def names(self) -> list[str]:
        """Return the digits, in the order of their class ids."""
        return [str(digit) for digit in self.classes]

    @property
    def splits(self) -> tuple[str, ...]:
        """Return all three splits."""
        return ("train", "val", "test")

    def load_splits(self, splits: Iterable[str]) -> dict[str, ImageSource]:
        """Draw the canvases of some splits."""
        return {
            split: DigitCanvases(
                split,  # type: ignore[arg-type]
                self.counts[split],
                self.image_size,
                self.seed,
                self.classes,
            )
            for split in splits
        }
