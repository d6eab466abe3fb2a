"""Write scikit-learn's 1,797 handwritten digits as PNG files in class folders.

`python examples/write_digit_folder.py` makes outputs/digits/{train,val,test}/{0..9}/*.png; then

    python train.py model=timm model.name=convnext_atto data=image_folder data.root=outputs/digits
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


def main(folder: str = "outputs/digits", size: int = 32, images: int | None = None) -> int:
    """Write the folder; return how many images are in it.

    Args:
        folder: Where to.
        size: Side of an image in pixels; the digits have 8.
        images: How many of them; None: all.
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:images]
    borders = np.round(np.cumsum(list(SPLITS.values())) * len(order)).astype(int)
    for split, part in zip(SPLITS, np.split(order, borders[:-1]), strict=True):
        for index in part:
            place = Path(folder, split, str(digits.target[index]))
            place.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((digits.images[index] * 255 / 16).astype(np.uint8))
            grey = grey.resize((size, size), Image.Resampling.BICUBIC)
            grey.save(place / f"{index:04d}.png")
    return len(order)


if __name__ == "__main__":
    print(main(), "images")
