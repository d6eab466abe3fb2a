"""Find what is wrong with a data set before the first epoch, and say it once."""

import warnings
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.errors import DataError
from lightning_prune.files.file_error import printable

OnError = Literal["raise", "skip"]
SHOWN = 5  # places named per kind of problem
MANY = 500  # images from which looking at them takes so long that it is shown


class Problem(Enum):
    """Kinds of problems: what it is, whether it stops the run, what to do."""

    CORRUPT_IMAGE = ("corrupt or unreadable image", True, "restore the file or remove it")
    MISSING_IMAGE = (
        "image that is named and not there",
        True,
        "restore the file, or correct what names it",
    )
    SIZE_DIFFERS = (
        "image whose size is not the annotated one",
        True,
        "use the files the annotations were made for",
    )
    UNKNOWN_CLASS = (
        "class id out of range",
        True,
        "correct the label (ids begin at 0), or declare the class in the names of the data set",
    )
    BOX_OUTSIDE = (
        "box outside the image",
        True,
        "boxes are centre x, centre y, width, height as fractions of the image, not pixels",
    )
    NO_AREA = ("box without area", True, "remove the line or give width and height")
    NEGATIVE_SIZE = ("box with a negative width or height", True, "give width and height")
    MALFORMED = (
        "malformed annotation",
        True,
        "a line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` for a polygon",
    )
    UNREADABLE_LABELS = ("label file that cannot be read", True, "restore the file or remove it")
    NO_LABEL_FILE = ("image without label file (taken as background)", False, "")
    NO_IMAGE = ("label file whose image is not there (left out)", False, "")
    NO_MASK = ("image without mask", True, "add the mask, or remove the image")
    MASK_ALONE = ("mask whose image is not there (left out)", False, "")
    MASK_COLORS = ("mask whose colours say no class", True, "")
    NO_OBJECTS = ("image without annotations (taken as background)", False, "")
    EMPTY_BOX = ("box without area (left out)", False, "")
    DUPLICATE = ("box given twice (taken once)", False, "")
    POLYGON = ("polygon (its bounding box is taken)", False, "")
    LIKE_POSES = (
        "data set whose polygons may be boxes with key points behind them",
        False,
        "if so, write kpt_shape: [points, 2] or [points, 3] into the data.yaml",
    )
    KEY_POINTS = ("object with key points (ignored; its box is taken)", False, "")
    CROWD = ("crowd region, or one to be ignored (left out)", False, "")
    TEXT_NUMBER = ("number written as text (read as a number)", False, "")
    LISTED_TWICE = ("image listed twice (taken once)", False, "")
    SAME_FILE = ("image under several ids (their objects are joined)", False, "")
    SAME_ID = ("annotation id given twice (both annotations are taken)", False, "")
    SAME_CATEGORY = ("category listed twice, or a name of several ids (one class)", False, "")
    NO_CATEGORY = ("category of the training file that is absent here", False, "")
    CORNERS = (
        "file whose boxes seem to be x1, y1, x2, y2 in place of x, y, width, height",
        True,
        "",
    )
    AS_STORED = ("image taken as it is stored, without its EXIF rotation", False, "")
    SEVERAL_IMAGES = ("file of several images (the first is taken)", False, "")
    DIM_IMAGE = (
        "16-bit image that uses little of its range (the upper byte is taken: it is dark)",
        False,
        "scale the values of all files by one factor up to 65535, or save 8 bits",
    )
    HIDDEN_IMAGE = ("hidden image, or one that an operating system left (left out)", False, "")
    OTHER_FORMAT = (
        "image of a format that is not read (left out)",
        False,
        "convert it to JPEG or PNG; for .heic it is enough to install pillow-heif",
    )
    EMPTY_CLASS = ("class folder without an image (left out)", False, "")
    LOOSE_IMAGE = (
        "image beside the class folders (left out)",
        False,
        "move it into the folder of its class",
    )
    UNTRAINED_CLASS = (
        "class of validation or test that the training split lacks",
        True,
        "add images of it to the training split, or remove it",
    )
    ABSENT_CLASS = ("class of the training split that is absent here", False, "")
    LIKE_CLASS = (
        "class whose name differs from another's in case or spaces only",
        False,
        "give both folders one name if they are one class",
    )
    IN_TWO_SPLITS = (
        "image that is in the training split too",
        False,
        "remove one of the two: results on images that were trained on are too good",
    )
    LINKED = ("linked folder that is read already or leads back (left out)", False, "")

    def __init__(self, text: str, fatal: bool, advice: str) -> None:
        """Store what the message says."""
        self.text = text
        self.fatal = fatal
        self.advice = advice


class Findings:
    """Problems found so far, by kind: how many, and the first places where they were found.

    Args:
        advice: What to do about some kinds, in the words of the data's format, in place of what
            the kind says.
    """

    def __init__(self, advice: Mapping[Problem, str] | None = None) -> None:
        self.places: dict[Problem, list[str]] = {}
        self._counts: Counter[Problem] = Counter()
        self._advice = dict(advice or {})

    def add(self, problem: Problem, place: str) -> None:
        """Record one problem and where it is."""
        self._counts[problem] += 1
        places = self.places.setdefault(problem, [])
        if len(places) < SHOWN:
            places.append(place)

    def merge(self, other: "Findings") -> None:
        """Add the problems of another."""
        self._counts.update(other._counts)
        for problem, places in other.places.items():
            own = self.places.setdefault(problem, [])
            own += places[: SHOWN - len(own)]

    def count(self, problem: Problem) -> int:
        """Count the places with one kind of problem."""
        return self._counts[problem]

    @property
    def fatal(self) -> bool:
        """Return whether a problem was found that stops a run."""
        return any(problem.fatal for problem in self.places)

    def message(self) -> str:
        """List every kind of problem: how often, the first places, what to do."""
        lines = []
        for problem in sorted(self.places, key=lambda each: not each.fatal):
            places, count = self.places[problem], self._counts[problem]
            lines.append(f"  {count} x {problem.text}")
            lines += [f"      {printable(place, 400)}" for place in places]
            if count > len(places):
                lines.append(f"      ... and {count - len(places)} more")
            advice = self._advice.get(problem, problem.advice)
            if advice:
                lines.append(f"      -> {advice}")
        return "\n".join(lines)


def settle(findings: Findings, on_error: OnError, title: str, left_out: int) -> None:
    """Raise or warn, once, about everything found.

    Args:
        findings: What was found.
        on_error: "raise" stops at problems that would spoil the training, "skip" continues.
        title: Which data set.
        left_out: Number of images that are not used because of the problems.

    Raises:
        DataError: on_error is "raise" and a fatal problem was found.
    """
    if not findings.places:
        return
    if findings.fatal and on_error == "raise":
        boxes = Problem.BOX_OUTSIDE in findings.places
        raise DataError(
            f"{title}: the data set has problems:\n{findings.message()}\n"
            'Correct the files, or pass on_error="skip" (data.on_error=skip on the command line) '
            "to leave out the images concerned"
            + (" (boxes that reach outside are clipped)." if boxes else ".")
        )
    tail = f"\n  {left_out} images are left out." if left_out else ""
    _warn(f"{title}: the data set has peculiarities:\n{findings.message()}{tail}")


@rank_zero_only
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
