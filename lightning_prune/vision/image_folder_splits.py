"""Divide images into training, validation and test, class by class."""

import zlib
from collections.abc import Sequence

import numpy as np

from lightning_prune.vision.image_folder_layout import LabelledFile


def divide(
    files: Sequence[LabelledFile], names: Sequence[str], fractions: dict[str, float], seed: int
) -> dict[str, list[LabelledFile]]:
    """Hold out a fraction of each class.

    The choice depends on the seed, the class's name and its file names alone: another class that
    comes or goes changes nothing in the others. Each class keeps at least one image for training.

    Args:
        files: The images, of each class sorted by name.
        names: Class names by label.
        fractions: For each split that is held out, the fraction of each class's images, whose sum
            is less than 1.
        seed: Of the choice.

    Returns:
        The images of each split, "train" first.

    >>> from pathlib import Path
    >>> files = [LabelledFile(Path(f"{n}.png"), n // 10) for n in range(20)]
    >>> parts = divide(files, ["a", "b"], {"val": 0.2, "test": 0.1}, seed=0)
    >>> {split: len(part) for split, part in parts.items()}
    {'train': 14, 'val': 4, 'test': 2}
    """
    parts: dict[str, list[LabelledFile]] = {"train": [], **{split: [] for split in fractions}}
    for label, name in enumerate(names):
        own = [file for file in files if file.label == label]
        order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(len(own))
        first = 0
        for split, fraction in fractions.items():
            last = min(first + round(fraction * len(own)), max(len(own) - 1, 0))
            parts[split] += [own[index] for index in sorted(order[first:last])]
            first = last
        parts["train"] += [own[index] for index in sorted(order[first:])]
    return parts
