"""Find what is wrong with a data set before the first epoch, and say it once."""

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from rich.progress import track

from lightning_prune.data.images import ImageError, read_image

OnError = Literal["raise", "skip"]
SHOWN = 5  # places named per kind of problem
_PROGRESS_FROM = 500  # pictures


class DataError(ValueError):
    """A data set that cannot be trained on as it is."""


class Problem(Enum):
    """Kinds of problems: what it is, whether it stops the run, what to do."""

    CORRUPT_IMAGE = ("corrupt or unreadable image", True, "restore the file or remove it")
    SIZE_DIFFERS = (
        "image whose size is not the annotated one",
        True,
        "use the files the annotations were made for",
    )
    UNKNOWN_CLASS = (
        "class id out of range",
        True,
        "correct the label, or declare the class in the names of the data set",
    )
    BOX_OUTSIDE = (
        "box outside the picture, that is outside [0, 1]",
        True,
        "boxes are centre x, centre y, width, height as fractions of the picture, not pixels",
    )
    NO_AREA = ("box without area", True, "remove the line or give width and height")
    MALFORMED = (
        "malformed annotation",
        True,
        "a line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` for a polygon",
    )
    NO_LABEL_FILE = ("image without label file (taken as background)", False, "")
    DUPLICATE = ("box given twice (taken once)", False, "")
    POLYGON = ("polygon (its bounding box is taken)", False, "")
    CROWD = ("crowd region (left out)", False, "")

    def __init__(self, text: str, fatal: bool, advice: str) -> None:
        """Store what the message says."""
        self.text = text
        self.fatal = fatal
        self.advice = advice


class Findings:
    """Problems found so far, by kind, each with the places where it was found."""

    def __init__(self) -> None:
        """Start with none."""
        self.places: dict[Problem, list[str]] = {}

    def add(self, problem: Problem, place: str) -> None:
        """Note one problem and where it is."""
        self.places.setdefault(problem, []).append(place)

    def merge(self, other: "Findings") -> None:
        """Take over the problems of another."""
        for problem, places in other.places.items():
            self.places.setdefault(problem, []).extend(places)

    def count(self, problem: Problem) -> int:
        """Count the places with one kind of problem."""
        return len(self.places.get(problem, []))

    @property
    def fatal(self) -> bool:
        """Whether a problem was found that stops a run."""
        return any(problem.fatal for problem in self.places)

    def message(self) -> str:
        """List every kind of problem: how often, the first places, what to do."""
        lines = []
        for problem in sorted(self.places, key=lambda each: not each.fatal):
            places = self.places[problem]
            lines.append(f"  {len(places)} x {problem.text}")
            lines += [f"      {place}" for place in places[:SHOWN]]
            if len(places) > SHOWN:
                lines.append(f"      ... and {len(places) - SHOWN} more")
            if problem.advice:
                lines.append(f"      -> {problem.advice}")
        return "\n".join(lines)


def settle(findings: Findings, on_error: OnError, title: str, left_out: int) -> None:
    """Raise or warn, once, about everything found.

    Args:
        findings: what was found.
        on_error: "raise" stops at problems that would spoil the training, "skip" goes on.
        title: which data set.
        left_out: number of pictures that are not used because of the problems.

    Raises:
        DataError: on_error is "raise" and a fatal problem was found.
    """
    if not findings.places:
        return
    if findings.fatal and on_error == "raise":
        raise DataError(
            f"{title}: the data set has problems:\n{findings.message()}\n"
            'Correct the files, or pass on_error="skip" to leave out the pictures concerned '
            "(boxes that reach outside are clipped)."
        )
    tail = f"\n  {left_out} pictures are left out." if left_out else ""
    _warn(f"{title}: the data set has peculiarities:\n{findings.message()}{tail}")


@rank_zero_only
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def image_sizes(
    paths: Sequence[Path], decode: bool = True, title: str = "checking images"
) -> list[tuple[int, int] | str]:
    """Read every picture in a few threads.

    Args:
        paths: picture files.
        decode: read to the last pixel, which finds files cut short; False reads headers only.
        title: of the progress bar shown for many pictures.

    Returns:
        for each file (height, width), or the message of what is wrong with it.
    """
    check = _decoded_size if decode else _header_size
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        results: Iterable[tuple[int, int] | str] = pool.map(check, paths)
        if len(paths) >= _PROGRESS_FROM:
            results = track(results, description=title, total=len(paths), transient=True)
        return list(results)


def _decoded_size(path: Path) -> tuple[int, int] | str:
    try:
        height, width = read_image(path).shape[:2]
    except ImageError as error:
        return str(error)
    return height, width


def _header_size(path: Path) -> tuple[int, int] | str:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # orientations 5-8 lie on their side
            return image.size if turned else (image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path}: {error}"
