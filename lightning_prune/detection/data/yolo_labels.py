"""Read label files: one line `class cx cy w h`, or a polygon, an object."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.boxes import Box, check_boxes
from lightning_prune.detection.data.records import ImageRecord
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text

_IMAGE_FOLDERS = {"images", "jpegimages"}
_LARGEST = 4 * MEGABYTE  # some 50,000 objects
_OTHER_LABELS = {".xml": "Pascal VOC", ".json": "labelme or another program", ".csv": "a table"}
_MANY_POSES = 20  # objects; of so many real outlines one shows that they are some
_ROUNDED = 1e-3
_NO_LABELS = {"classes", "labels", "notes", "train", "val", "valid", "test", "README", "readme"}
KeyPoints = tuple[int, int]


def label_path(image: Path) -> Path:
    """Return where the labels of an image are: the last folder `images` becomes `labels`.

    >>> label_path(Path("/d/images/train/a.jpg")).as_posix()
    '/d/labels/train/a.txt'
    """
    return _label_folder(image.parent) / image.with_suffix(".txt").name


def _label_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    for position in range(len(parts) - 1, -1, -1):
        if parts[position].casefold() in _IMAGE_FOLDERS:
            replaced = [Path(*parts[:position], name, *parts[position + 1 :]) for name in
                        ("labels", "Labels")]  # fmt: skip
            return next((each for each in replaced if each.is_dir()), replaced[0])
    return folder


def read_records(
    images: Sequence[Path],
    num_classes: int,
    findings: Findings,
    key_points: KeyPoints | None = None,
) -> tuple[list[ImageRecord], set[Path]]:
    """Read the labels of every image.

    Args:
        images: Image files.
        num_classes: Number of classes K.
        findings: Takes the problems.
        key_points: Number of key points of an object and of values a point: such lines continue
            behind the box with them. None: what continues is a polygon.

    Returns:
        one record per image, and the images with an object that cannot be used.

    Raises:
        DataError: a label folder does not exist, or not one image has a label file.
    """
    folders = _label_folders(images)
    poses = _Poses()
    records, unusable, absent = [], set(), 0
    for image in images:
        file = folders[image.parent] / image.with_suffix(".txt").name
        try:
            lines = read_text(file, _LARGEST).splitlines()
        except FileNotFoundError:
            findings.add(Problem.NO_LABEL_FILE, f"{image} (no {file.name})")
            lines, absent = [], absent + 1
        except FileError as error:
            findings.add(Problem.UNREADABLE_LABELS, str(error))
            lines = []
            unusable.add(image)
        parsed, clean = _parse(lines, file, findings, key_points)
        if key_points is None:
            poses.see(lines)
        labels, boxes, complete = check_boxes(parsed, num_classes, findings)
        records.append(ImageRecord(image, labels, boxes))
        if not (clean and complete):
            unusable.add(image)
    if poses.likely:
        findings.add(Problem.LIKE_POSES, f"{poses.columns} columns in each of {poses.count} lines")
    if absent == len(images):
        hint = _elsewhere(images[0], folders[images[0].parent])
        raise DataError(
            f"no label file for any of {len(images)} images in "
            f"{', '.join(sorted({str(folder) for folder in folders.values()})[:5])}: "
            f"they are named like the images, with the suffix .txt{hint}"
        )
    return records, unusable


def note_labels_without_image(images: Sequence[Path], findings: Findings) -> None:
    """Record label files whose image is not there.

    Args:
        images: All images of the folders that they are in.
        findings: Takes the label files.
    """
    stems: dict[Path, set[str]] = {}
    for image in images:
        stems.setdefault(image.parent, set()).add(image.stem)
    for folder, place in _label_folders(images).items():
        for entry in sorted(os.scandir(place), key=lambda each: each.name):
            stem, suffix = os.path.splitext(entry.name)
            if suffix == ".txt" and stem not in stems[folder] and stem not in _NO_LABELS:
                findings.add(Problem.NO_IMAGE, str(place / entry.name))


def _label_folders(images: Sequence[Path]) -> dict[Path, Path]:
    """Find the folder of labels for each folder of images.

    Raises:
        DataError: there is none for some of them.
    """
    folders, missing, first = {}, [], None
    for image in images:
        if image.parent in folders:
            continue
        place = _label_folder(image.parent)
        if not place.is_dir() and image.with_suffix(".txt").is_file():
            place = image.parent  # labels beside their images
        folders[image.parent] = place
        if not place.is_dir():
            missing.append(str(place))
            first = first or image
    if first is not None:
        raise DataError(
            f"label folder missing: {', '.join(sorted(missing)[:5])}. The labels of "
            ".../images/x.jpg belong in .../labels/x.txt (an empty file for an image without "
            f"objects){_elsewhere(first, first.parent)}"
        )
    return folders


def _elsewhere(image: Path, labels: Path) -> str:
    """Return where something named like the image is, near it: labels elsewhere, other formats."""
    if (labels / f"{image.name}.txt").is_file():
        return f"; there is {image.name}.txt: name it {image.stem}.txt"
    near = [image.parent, *image.parents[1:3]]
    for base in near:
        for folder in [base, *sorted(each for each in base.iterdir() if each.is_dir())[:30]]:
            for place in dict.fromkeys([folder, folder / image.parent.name]):
                if place != image.parent and (place / f"{image.stem}.txt").is_file():
                    return f"; found {place / image.stem}.txt: rename that folder, or link to it"
                for suffix, what in _OTHER_LABELS.items():
                    if (place / f"{image.stem}{suffix}").is_file():
                        found = place / f"{image.stem}{suffix}"
                        return f"; found {found} ({what}): convert such files to YOLO labels"
    return ""


def _parse(
    lines: Sequence[str], file: Path, findings: Findings, key_points: KeyPoints | None
) -> tuple[list[tuple[int, Box, str]], bool]:
    objects, clean = [], True
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        place = f"{file}:{number}"
        try:
            label, box, kind = _object(columns, key_points)
        except ValueError as error:
            shown = printable(repr(line.strip()[:60]), 80)
            findings.add(Problem.MALFORMED, f"{place}: {shown} ({error})")
            clean = False
            continue
        if kind is not None:
            findings.add(kind, place)
        objects.append((label, box, place))
    return objects, clean


def _object(
    columns: Sequence[str], key_points: KeyPoints | None
) -> tuple[int, Box, Problem | None]:
    """Read the columns of one object.

    Raises:
        ValueError: says what is wrong.
    """
    if any("," in column for column in columns):
        raise ValueError("columns are separated by blanks, decimals by points")
    try:
        values = [_number(column) for column in columns]
    except ValueError:
        text = "a class is its number, from 0" if columns[0][:1].isalpha() else "not numbers"
        raise ValueError(text) from None
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is NaN or infinite")
    if not values[0].is_integer():
        raise ValueError("the class is not a whole number")
    count, label = len(values), int(values[0])
    if count == 5:
        return label, (values[1], values[2], values[3], values[4]), None
    if key_points is not None:
        wanted = 5 + key_points[0] * key_points[1]
        if count != wanted:
            raise ValueError(f"{count} columns; with kpt_shape {list(key_points)} {wanted}")
        return label, (values[1], values[2], values[3], values[4]), Problem.KEY_POINTS
    if count >= 7 and count % 2 == 1:
        return label, _hull(values[1:]), Problem.POLYGON
    more = " (a prediction with its confidence, or a rotated box?)" if count == 6 else ""
    raise ValueError(f"{count} columns{more}")


class _Poses:
    """Return whether all polygons can be boxes with key points inside, as many in each line."""

    def __init__(self) -> None:
        self.count = 0
        self.columns = 0
        self._possible = True

    @property
    def likely(self) -> bool:
        """Return whether they can, and are so many that it is no accident."""
        return self._possible and self.count >= _MANY_POSES

    def see(self, lines: Sequence[str]) -> None:
        """Inspect the lines of a file, until a polygon is seen."""
        if not self._possible:
            return
        for line in lines:
            columns = line.split()
            if len(columns) < 7 or len(columns) % 2 == 0:
                continue
            self.columns = self.columns or len(columns)
            self.count += 1
            try:
                _, cx, cy, width, height, *points = map(float, columns)
            except ValueError:
                continue
            across, down = width / 2 + _ROUNDED, height / 2 + _ROUNDED
            inside = all(
                (x == 0 and y == 0) or (abs(x - cx) <= across and abs(y - cy) <= down)
                for x, y in zip(points[::2], points[1::2], strict=True)
            )
            whole = abs(cx - 0.5) + width / 2 < 0.501 and abs(cy - 0.5) + height / 2 < 0.501
            # rotated boxes have 9 columns too
            self._possible = inside and whole and len(columns) == self.columns != 9
            if not self._possible:
                return


def _number(text: str) -> float:
    if "_" in text:  # Python would read 1_0 as 10
        raise ValueError(text)
    return float(text)


def _hull(polygon: Sequence[float]) -> Box:
    xs, ys = polygon[0::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
