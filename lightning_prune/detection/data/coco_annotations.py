"""Turn COCO's annotation files into records: classes, image files, boxes."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from unicodedata import normalize

import numpy as np

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.boxes import ROUNDING, Box, check_boxes
from lightning_prune.detection.data.coco_file import CocoFile, CocoImage, CocoObject
from lightning_prune.detection.data.coco_values import Key
from lightning_prune.detection.data.records import ImageRecord
from lightning_prune.detection.data.yolo_layout import variants
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import printable

PIXEL = 1.0  # annotation tools count to the last pixel or to its edge


@dataclass
class _Joined:
    """An image file and the objects of all its entries."""

    image: CocoImage
    keys: list[Key]
    objects: list[CocoObject] = field(default_factory=list)


def match_classes(file: CocoFile, names: Sequence[str], findings: Findings) -> dict[Key, int]:
    """Match the categories of a file with the classes by their names.

    Args:
        file: The annotations.
        names: Of the classes, those of the training file.
        findings: Takes the classes that the file does not know.

    Returns:
        category id -> class in 0..K-1; without the categories that are no class.

    Raises:
        DataError: not one category is a class.
    """
    classes = {name: index for index, name in enumerate(names)}
    found = {key: classes[name] for key, name in file.categories.items() if name in classes}
    if not found:
        own, others = (", ".join(printable(n) for n in some[:8]) for some in (file.names, names))
        raise DataError(
            f"{file.path}: its categories ({own}) are not those of the training file ({others}): "
            "categories of several files are matched by their names"
        )
    for name in names:
        if name not in file.names:
            findings.add(Problem.NO_CATEGORY, f"{file.path.name}: {name}")
    return found


def coco_records(
    file: CocoFile, folder: Path, root: Path, names: Sequence[str], findings: Findings
) -> tuple[list[ImageRecord], dict[Path, tuple[int, int]], set[Path]]:
    """Turn an annotation file into records.

    Args:
        file: The annotations.
        folder: Where the images are.
        root: Folder of the data set, where they are looked for too.
        names: Of the classes.
        findings: Takes the problems.

    Returns:
        one record per image; the annotated (height, width) of each; the images with an object that
        cannot be used.

    Raises:
        DataError: no image is there, no category is a class, or one file has two sizes.
    """
    class_of = match_classes(file, names, findings)
    findings.merge(file.findings)
    for key in file.empty:
        findings.add(Problem.NO_OBJECTS, f"{file.path.name}: {file.images[key].file_name}")
    records, sizes, unusable = [], {}, set()
    for path, joined in _join(file, _find_images(file, folder, root, findings), findings).items():
        width, height = joined.image.width, joined.image.height
        boxes, known = _classed(file, joined, class_of, findings)
        slack = max(ROUNDING, PIXEL / width), max(ROUNDING, PIXEL / height)
        labels, array, complete = check_boxes(
            boxes, len(names), findings, slack, Problem.EMPTY_BOX, partial(_show, width, height)
        )
        records.append(ImageRecord(path, labels, array))
        sizes[path] = (height, width)
        if not (known and complete) or not file.incomplete.isdisjoint(joined.keys):
            unusable.add(path)
    _suspect_other_boxes(file, findings)
    return records, sizes, unusable


def _find_images(file: CocoFile, folder: Path, root: Path, findings: Findings) -> dict[Key, Path]:
    """Find the files; where folders in the names are of another computer, by the last part."""
    tails = Counter(_tail(image.file_name) for image in file.images.values())
    found = {}
    for key, image in file.images.items():
        name = image.file_name
        places = [base / text for text in variants(name) for base in (folder, root)]
        if tails[_tail(name)] == 1:
            places += [folder / form for form in dict.fromkeys(
                normalize(kind, _tail(name)) for kind in ("NFC", "NFD"))]  # fmt: skip
        for place in places:
            # a link to nothing is said where images are read, with what it leads to
            if os.path.lexists(place) and not os.path.isdir(place):
                found[key] = place
                break
        else:
            findings.add(
                Problem.MISSING_IMAGE,
                f"{file.path.name}, images[{image.position}]: No such file: {folder / name}",
            )
    if not found:
        first = next(iter(file.images.values()))
        raise DataError(
            f"{file.path}: not one of its {len(file.images)} images is there; the first is "
            f"{printable(first.file_name, 300)}, looked for in {folder}: correct the folder of the "
            "images (train_images, val_images, test_images) or root"
        )
    return found


def _tail(name: str) -> str:
    return re.split(r"[\\/]", name.partition("?")[0] if "://" in name else name)[-1]


def _join(file: CocoFile, paths: Mapping[Key, Path], findings: Findings) -> dict[Path, _Joined]:
    joined: dict[Path, _Joined] = {}
    for key, path in paths.items():
        image = file.images[key]
        known = joined.setdefault(path, _Joined(image, []))
        if known.keys:
            if known.image[2:] != image[2:]:
                raise DataError(
                    f"{file.path}: {printable(image.file_name)} is listed with two sizes, "
                    f"images[{known.image.position}] and images[{image.position}]"
                )
            findings.add(Problem.SAME_FILE, f"{path}: ids {known.keys[0]} and {key}")
        known.keys.append(key)
        known.objects += file.objects.get(key, [])
    return joined


def _classed(
    file: CocoFile, joined: _Joined, class_of: Mapping[Key, int], findings: Findings
) -> tuple[list[tuple[int, Box, str]], bool]:
    boxes, known = [], True
    image = joined.image
    for position, category, (x, y, width, height) in joined.objects:
        place = f"{file.path.name}, annotations[{position}] ({image.file_name})"
        label = class_of.get(category)
        if label is None:
            name = file.categories.get(category)
            what = "is not among `categories`" if name is None else "is not in the training file"
            shown = printable(str(category)) + (f" ({printable(name)})" if name else "")
            findings.add(Problem.UNKNOWN_CLASS, f"{place}: category {shown} {what}")
            known = False
            continue
        centre = (x + width / 2) / image.width, (y + height / 2) / image.height
        boxes.append((label, (*centre, width / image.width, height / image.height), place))
    return boxes, known


def _show(width: int, height: int, box: Box) -> str:
    cx, cy, w, h = box
    numbers = (cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height
    text = ", ".join(f"{round(number, 2):g}" for number in numbers)
    return f"bbox [{text}] in an image of {width} x {height} pixels"


def _suspect_other_boxes(file: CocoFile, findings: Findings) -> None:
    """Record files whose boxes are all corners, or fractions.

    Raises:
        DataError: they are fractions: boxes of a pixel would be learnt.
    """
    present = [(file.images[k], o) for k, o in file.objects.items() if k in file.images]
    numbers = chain.from_iterable(one.box for _, objects in present for one in objects)
    values = np.fromiter(numbers, np.float64).reshape(-1, 4)
    if not len(values):
        return
    counts = [len(objects) for _, objects in present]
    sizes = np.array([(image.width, image.height) for image, _ in present], np.float64)
    width, height = np.repeat(sizes, counts, axis=0).T
    x, y, w, h = values.T
    if values.max() <= 1 and (values % 1).any() and min(width.max(), height.max()) > 2:
        raise DataError(
            f"{file.path}: no `bbox` has a number above 1: they seem to be parts of the image's "
            "width and height; COCO's are in pixels"
        )
    outside = (x + w > width + PIXEL) | (y + h > height + PIXEL)
    corners = (w > x) & (h > y) & (w <= width + PIXEL) & (h <= height + PIXEL)
    if outside.any() and corners.all() and len(values) > 2:
        findings.add(
            Problem.CORNERS, f"{file.path.name}: all {len(values)} can be read so, none is outside"
        )
