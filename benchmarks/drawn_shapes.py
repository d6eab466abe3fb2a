"""Write a segmentation set: circles and triangles drawn on pieces of photographs, with masks.

python benchmarks/drawn_shapes.py path/to/photographs path/to/shapes [--polygons]

Classes are background, circle and triangle; with --polygons circle and triangle are objects, one
polygon each, in the folders and the data.yaml of Ultralytics. Shapes are half transparent, of any
colour, and cover one another; some are neither (squares) and belong to the background. Everything
depends on the seed alone. docs/log.md has what was trained on it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("background", "circle", "triangle")
CORNERS = {0: 4, 1: 24, 2: 3}
COUNTS = {"train": 240, "val": 80, "test": 80}


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of .jpg files, with subfolders")
    parser.add_argument("root", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=96, help="side of an image, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    parser.add_argument("--times", type=int, default=1, help="so many times as many images")
    parser.add_argument("--polygons", action="store_true", help="polygons instead of masks")
    arguments = parser.parse_args()
    counts = {split: count * arguments.times for split, count in COUNTS.items()}
    write = write_polygons if arguments.polygons else write_shapes
    write(arguments.photographs, arguments.root, counts, arguments.size, arguments.seed)


Corners = list[tuple[float, float]]


def write_shapes(
    photographs: Path, root: Path, counts: dict[str, int], size: int = 96, seed: int = 0
) -> None:
    """Write images and masks of every split, and classes.txt; no photograph is in two splits."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for split, index, image, mask, _ in drawn(photographs, counts, size, seed):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        image.save(root / split / "images" / f"{index:04d}.jpg", quality=92)
        mask.save(root / split / "masks" / f"{index:04d}.png")


def write_polygons(
    photographs: Path, root: Path, counts: dict[str, int], size: int = 96, seed: int = 0
) -> None:
    """Write images, a line "class x y x y ..." a shape (0 to 1 of the side), and data.yaml."""
    for split, index, image, _, shapes in drawn(photographs, counts, size, seed):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        image.save(root / "images" / split / f"{index:04d}.jpg", quality=92)
        lines = [
            f"{kind - 1} "
            + " ".join(f"{min(max(v / size, 0), 1):.5f}" for xy in corners for v in xy)
            for kind, corners in shapes
            if kind
        ]
        (root / "labels" / split / f"{index:04d}.txt").write_text("\n".join(lines) + "\n")
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(NAMES[1:]))
    folders = "\n".join(f"{split}: images/{split}" for split in counts)
    (root / "data.yaml").write_text(f"path: {root.resolve()}\n{folders}\nnames:\n{names}\n")


def drawn(
    photographs: Path, counts: dict[str, int], size: int, seed: int
) -> Iterator[tuple[str, int, Image.Image, Image.Image, list[tuple[int, Corners]]]]:
    """Yield split, number, image, mask and shapes of every picture that is to be written."""
    photos = sorted(photographs.rglob("*.jpg"))
    if len(photos) < len(counts):
        raise SystemExit(f"{photographs} holds {len(photos)} .jpg files: {len(counts)} are needed")
    rng = np.random.default_rng(seed)
    rng.shuffle(photos)
    start, total = 0, sum(counts.values())
    for split, count in counts.items():
        own = photos[start : start + max(1, len(photos) * count // total)]
        start += len(own)
        for index in range(count):
            yield split, index, *draw(own[index % len(own)], size, rng)


def draw(
    photo: Path, size: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, list[tuple[int, Corners]]]:
    """Return a piece of a photograph with shapes on it, its mask, and kind and corners of each."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    side = int(min(image.size) * rng.uniform(0.3, 0.9))
    left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((size, size))
    mask = Image.new("L", (size, size))
    shapes = []
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
            pen.regular_polygon((x, y, radius), CORNERS[kind], rotation=turn, fill=255)
        shapes.append((kind, corners_of(x, y, radius, CORNERS[kind], turn)))
        opacity = rng.uniform(0.45, 0.9)
        image.paste(color, mask=shape.point(lambda value, opacity=opacity: int(value * opacity)))
        mask.paste(kind, mask=shape)
    return image, mask, shapes


def corners_of(x: float, y: float, radius: float, count: int, turn: float) -> Corners:
    """Return the corners of a regular polygon as Pillow draws it (one side below, then turned)."""
    start = 90 + 180 / count - turn
    angles = np.deg2rad(start + 360 / count * np.arange(count))
    return [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]


if __name__ == "__main__":
    main()
