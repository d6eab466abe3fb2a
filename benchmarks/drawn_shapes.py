"""Write a segmentation set: circles and triangles drawn on pieces of photographs, with masks.

python benchmarks/drawn_shapes.py path/to/photographs path/to/shapes

Classes are background, circle and triangle. Shapes are half transparent, of any colour, and cover
one another; some are neither (squares) and belong to the background. Everything depends on the
seed alone. docs/log.md has what was trained on it.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("background", "circle", "triangle")
COUNTS = {"train": 240, "val": 80, "test": 80}


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of .jpg files, with subfolders")
    parser.add_argument("root", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=96, help="side of an image, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    arguments = parser.parse_args()
    write_shapes(arguments.photographs, arguments.root, COUNTS, arguments.size, arguments.seed)


def write_shapes(
    photographs: Path, root: Path, counts: dict[str, int], size: int = 96, seed: int = 0
) -> None:
    """Write images and masks of every split, and classes.txt; no photograph is in two splits."""
    photos = sorted(photographs.rglob("*.jpg"))
    if len(photos) < len(counts):
        raise SystemExit(f"{photographs} holds {len(photos)} .jpg files: {len(counts)} are needed")
    rng = np.random.default_rng(seed)
    rng.shuffle(photos)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    start, total = 0, sum(counts.values())
    for split, count in counts.items():
        own = photos[start : start + max(1, len(photos) * count // total)]
        start += len(own)
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, mask = draw(own[index % len(own)], size, rng)
            image.save(root / split / "images" / f"{index:04d}.jpg", quality=92)
            mask.save(root / split / "masks" / f"{index:04d}.png")


def draw(photo: Path, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return a piece of a photograph with shapes on it, and its mask."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    side = int(min(image.size) * rng.uniform(0.3, 0.9))
    left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((size, size))
    mask = Image.new("L", (size, size))
    for _ in range(int(rng.integers(1, 6))):
        kind = int(rng.integers(0, 3))
        x, y = rng.uniform(0, size, 2)
        radius, turn = size * rng.uniform(0.06, 0.2), rng.uniform(0, 360)
        color = tuple(int(part) for part in rng.integers(0, 256, 3))
        shape = Image.new("L", (size, size))
        pen = ImageDraw.Draw(shape)
        if kind == 1:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        else:
            corners = 3 if kind == 2 else 4
            pen.regular_polygon((x, y, radius), corners, rotation=turn, fill=255)
        opacity = rng.uniform(0.45, 0.9)
        image.paste(color, mask=shape.point(lambda value, opacity=opacity: int(value * opacity)))
        mask.paste(kind, mask=shape)
    return image, mask


if __name__ == "__main__":
    main()
