"""Look at image files before training: size, and what is odd about them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from lightning_prune.data.checks import MANY, Findings, Problem
from lightning_prune.data.images import (
    ImageError,
    open_image,
    orientation,
    read_image,
    sixteen_bits,
)
from lightning_prune.errors import DataError

_DIM = 1 << 14  # of 65536: a quarter of the range
_SINGLE = ("JPEG", "MPO")  # what else an MPO file holds are previews


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is like.

    Attributes:
        height: Of the upright image, in pixels.
        width: Of the upright image, in pixels.
        lies: Whether its EXIF orientation exchanges rows and columns.
        images: How many images the file holds.
        brightest: Largest value of a 16-bit image, else None.
    """

    height: int
    width: int
    lies: bool = False
    images: int = 1
    brightest: int | None = None


def image_facts(path: Path, decode: bool = True) -> ImageFacts:
    """Inspect one image.

    Args:
        path: The file.
        decode: Read to the last pixel, which finds files cut short; False reads the header only.

    Raises:
        ImageError: it cannot be read.
    """
    if decode:
        read_image(path)
    with open_image(path) as image:
        width, height = image.size
        lies = orientation(image) >= 5
        deep = decode and image.mode.startswith("I")
        brightest = int(sixteen_bits(image).max(initial=0)) if deep else None
        count = 1 if image.format in _SINGLE else int(getattr(image, "n_frames", 1))
    height, width = (width, height) if lies else (height, width)
    return ImageFacts(height, width, lies, count, brightest)


def look_at_images(
    paths: Sequence[Path], decode: bool = True, title: str = "checking images"
) -> list[ImageFacts | ImageError]:
    """Inspect every image in a few threads.

    Args:
        paths: Image files.
        decode: Read to the last pixel; False reads headers only.
        title: Of the progress bar shown for many images.

    Returns:
        for each file what it is like, or what is wrong with it.
    """

    def look(path: Path) -> ImageFacts | ImageError:
        try:
            return image_facts(path, decode)
        except ImageError as error:
            return error

    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        results: Iterable[ImageFacts | ImageError] = pool.map(look, paths)
        if len(paths) >= MANY:
            results = tqdm(results, title, total=len(paths), leave=False)
        return list(results)


def note_images(
    paths: Sequence[Path], facts: Sequence[ImageFacts | ImageError], findings: Findings
) -> set[Path]:
    """Record what is wrong with images or odd about them.

    Args:
        paths: Image files.
        facts: Of each, as `look_at_images` gives them.
        findings: Takes the problems.

    Returns:
        the files that cannot be used.

    Raises:
        DataError: most files are the same other thing, such as pointers of Git LFS.
    """
    errors = [each for each in facts if isinstance(each, ImageError)]
    _refuse_foreign(errors, len(paths))
    for path, each in zip(paths, facts, strict=True):
        if isinstance(each, ImageError):
            findings.add(Problem.CORRUPT_IMAGE, str(each))
            continue
        if each.images > 1:
            findings.add(Problem.SEVERAL_IMAGES, f"{path}: {each.images}")
        if each.brightest is not None and each.brightest < _DIM:
            findings.add(Problem.DIM_IMAGE, f"{path}: at most {each.brightest} of 65535")
    return {error.path for error in errors}


def _refuse_foreign(errors: Sequence[ImageError], count: int) -> None:
    kinds: Counter[str] = Counter()
    first: dict[str, ImageError] = {}
    for error in errors:
        if error.foreign is not None:
            kind = re.sub(r"[\d,]+ bytes|'.*'", "...", error.foreign)
            kinds[kind] += 1
            first.setdefault(kind, error)
    for kind, number in kinds.most_common(1):
        if 2 * number > count:
            raise DataError(
                f"{number} of {count} images are not images: the first, {first[kind].path}, is "
                f"{first[kind].foreign}"
            )
