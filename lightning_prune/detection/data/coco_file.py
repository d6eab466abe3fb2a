"""Read COCO's annotation files."""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.coco_values import (
    Key,
    as_box,
    as_flag,
    as_key,
    as_size,
    hull,
    shown,
)
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text

ADVICE = {
    Problem.BOX_OUTSIDE: "`bbox` is x, y, width, height in pixels; x, y is the upper left corner",
    Problem.NEGATIVE_SIZE: "`bbox` is x, y, width, height in pixels",
    Problem.MALFORMED: "an annotation has image_id, category_id and `bbox`: x, y, width, height in "
    "pixels",
    Problem.UNKNOWN_CLASS: "correct category_id, or list the category in `categories`; categories "
    "of several files are matched by their names",
    Problem.MISSING_IMAGE: "restore the file, or correct the folder of the images (train_images, "
    "val_images, test_images)",
}
"""What to do, in COCO's words."""

_LARGEST = 16 * 1024 * MEGABYTE
_LISTS = ("images", "annotations", "categories")
_OTHER_FILES = {
    "shapes": "a file of labelme: convert the folder of them to COCO",
    "_via_img_metadata": "a project of VGG Image Annotator: export it as COCO",
    "regions": "a file of VGG Image Annotator: export it as COCO",
    "features": "GeoJSON: convert it to COCO",
}


class CocoImage(NamedTuple):
    """An entry of `images`."""

    position: int
    file_name: str
    width: int
    height: int


class CocoObject(NamedTuple):
    """An entry of `annotations`: category and x, y, width, height in pixels."""

    position: int
    category: Key
    box: tuple[float, float, float, float]


@dataclass
class CocoFile:
    """The parts of an annotation file a detector needs.

    Attributes:
        path: Of the file.
        categories: Category id -> name, sorted by id.
        images: By id.
        objects: By image id; crowds are not among them.
        incomplete: Ids of images with an annotation that cannot be used.
        empty: Ids of images without any annotation.
        findings: What was found in it.
    """

    path: Path
    categories: dict[Key, str] = field(default_factory=dict)
    images: dict[Key, CocoImage] = field(default_factory=dict)
    objects: dict[Key, list[CocoObject]] = field(default_factory=dict)
    incomplete: set[Key] = field(default_factory=set)
    empty: list[Key] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def names(self) -> list[str]:
        """Return the names of the categories, each once, sorted by id."""
        return list(dict.fromkeys(self.categories.values()))


def read_coco(path: Path) -> CocoFile:
    """Read one annotation file.

    Raises:
        DataError: it is absent, no JSON, lacks images, annotations or categories, is a COCO file of
            another task, or an image or a category in it makes no sense.
    """
    with without_collection():
        content = _load(path)
        _check_kind(path, content)
        file = CocoFile(path)
        _read_categories(file, content["categories"])
        _read_images(file, content["images"])
        _read_objects(file, content["annotations"])
    return file


@contextmanager
def without_collection() -> Iterator[None]:
    """Make many objects without looking for cycles: a third of the time of a million of them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _load(path: Path) -> Any:
    if not os.path.lexists(path):
        raise DataError(f"annotation file {path} does not exist")
    try:
        size = os.path.getsize(path) if path.is_file() else 1
        text = read_text(path, min(_LARGEST, size + 1))
    except (FileError, OSError) as error:
        raise DataError(
            f"{error}" if isinstance(error, FileError) else f"{path}: {error}"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty: fetch it again")
    try:
        return json.loads(text, object_hook=_without_outlines)
    except RecursionError as error:
        raise DataError(f"{path}: nested deeper than any annotation file") from error
    except ValueError as error:  # a number of thousands of digits too
        raise DataError(f"{path} is not JSON: {printable(str(error), 200)}") from error


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    # Outlines are nine tenths of the official files; held as Python's numbers they take gigabytes.
    outline = entry.pop("segmentation", None)
    if outline is not None and not entry.get("bbox"):
        try:
            entry["hull"] = hull(outline)
        except ValueError as error:
            entry["hull"] = str(error)
    if entry.pop("keypoints", None) and "bbox" in entry:
        entry["has_key_points"] = True
    return entry


def _check_kind(path: Path, content: Any) -> None:
    if isinstance(content, list):
        first = content[0] if content else None
        predicted = isinstance(first, dict) and "score" in first
        what = "a list of predictions (results)" if predicted else "a list"
        raise DataError(f"{path} is {what}: {_wanted()}")
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {shown(content)}: {_wanted()}")
    given = content.get("annotations")
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, dict) and "bbox" not in first and "hull" not in first:
        for key, what in (("caption", "captions"), ("segments_info", "panoptic segments")):
            if key in first:
                raise DataError(
                    f"{path} holds {what}, no boxes: give the instances file of this data set"
                )
    lacking = [key for key in _LISTS if not isinstance(content.get(key), list)]
    if not lacking:
        if not content["images"]:
            raise DataError(f"{path} is empty: it lists no image")
        return
    known = next((what for key, what in _OTHER_FILES.items() if key in content), None)
    if known is None and lacking == ["annotations"] and "annotations" not in content:
        known = "no annotations (image_info files of test sets come without them)"
    present = ", ".join(printable(str(key)) for key in list(content)[:12]) or "nothing"
    raise DataError(
        f"{path} has no list {' and no list '.join(lacking)}: {_wanted()}; it holds {present}"
        + (f": {known}" if known else "")
    )


def _wanted() -> str:
    return f"an annotation file holds the lists {', '.join(_LISTS)}"


def _entries(
    path: Path, name: str, entries: list[Any], keys: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {name}[{position}] is {shown(entry)}, no entry with keys")
        missing = [key for key in keys if key not in entry]
        if missing:
            raise DataError(f"{path}: {name}[{position}] has no {', '.join(missing)}")
        yield position, entry


def _read_categories(file: CocoFile, entries: list[Any]) -> None:
    found: dict[Key, str] = {}
    for position, entry in _entries(file.path, "categories", entries, ("id", "name")):
        place = f"{file.path}: categories[{position}]"
        try:
            key = _key(file, entry["id"], place)
        except ValueError as error:
            raise DataError(f"{place}: id: {error}") from error
        name = entry["name"]
        if isinstance(name, bool) or not isinstance(name, str | int | float) or name == "":
            raise DataError(f"{place}: name {shown(name)} is no text")
        name = str(name).strip()
        if key in found and found[key] != name:
            raise DataError(
                f"{place}: the id {key} stands for {found[key]} and for {name}: every category "
                "needs an id of its own"
            )
        if key in found or name in found.values():
            file.findings.add(Problem.SAME_CATEGORY, f"{place}: {name}, id {key}")
        found[key] = name
    if not found:
        raise DataError(f"{file.path}: categories is empty: there is nothing to tell apart")
    file.categories = {key: found[key] for key in sorted(found, key=_order)}


def _order(key: Key) -> tuple[bool, int, str]:
    return (True, 0, key) if isinstance(key, str) else (False, key, "")


def _read_images(file: CocoFile, entries: list[Any]) -> None:
    needed = ("id", "file_name", "width", "height")
    for position, entry in _entries(file.path, "images", entries, needed):
        name = entry["file_name"]
        place = f"{file.path}: images[{position}]"
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"{place}: file_name {shown(name)} is no name of a file")
        try:
            key = _key(file, entry["id"], place)
            width, height = _size(file, entry, place)
        except ValueError as error:
            raise DataError(f"{place} ({printable(name)}): {error}") from error
        image, known = CocoImage(position, name, width, height), file.images.get(key)
        if known is None:
            file.images[key] = image
        elif known[1:] == image[1:]:
            file.findings.add(Problem.LISTED_TWICE, f"{place} ({name})")
        else:
            raise DataError(
                f"{place}: the id {key} stands for {printable(known.file_name)} "
                f"(images[{known.position}]) and for {printable(name)}, {known.width} x "
                f"{known.height} and {width} x {height} pixels: every image needs an id of its own"
            )


def _size(file: CocoFile, entry: dict[str, Any], place: str) -> tuple[int, int]:
    sizes = []
    for name in ("width", "height"):
        try:
            sizes.append(as_size(entry[name]))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if isinstance(entry[name], str):
            file.findings.add(Problem.TEXT_NUMBER, f"{place}: {name}")
    return sizes[0], sizes[1]


def _read_objects(file: CocoFile, entries: list[Any]) -> None:
    known, seen, annotated = file.images, set[Any](), set[Key]()
    for position, entry in enumerate(entries):
        place = f"{file.path.name}, annotations[{position}]"
        image: Key | None = None
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"{shown(entry)} is no entry with keys")
            image = _key(file, _given(entry, "image_id"), place)
            annotated.add(image)
            found = _object(file, position, entry, place)
        except ValueError as error:
            name = f" ({known[image].file_name})" if image in known else ""
            file.findings.add(Problem.MALFORMED, f"{place}{name}: {error}")
            if image is not None:
                file.incomplete.add(image)
            continue
        identity = entry.get("id")
        if isinstance(identity, int | str):
            if identity in seen:
                file.findings.add(Problem.SAME_ID, f"{place}: {identity}")
            seen.add(identity)
        if found is not None:
            file.objects.setdefault(image, []).append(found)
    file.empty = [key for key in known if key not in annotated]
    for image in sorted(annotated - known.keys(), key=_order):
        count = len(file.objects.get(image, ()))
        file.findings.add(
            Problem.MALFORMED,
            f"{file.path.name}: {count} annotations of image id {image}, which is absent",
        )


def _object(file: CocoFile, position: int, entry: dict[str, Any], place: str) -> CocoObject | None:
    """Read an annotation; None for a crowd."""
    for name in ("iscrowd", "ignore"):
        try:
            if name in entry and as_flag(entry[name]):
                file.findings.add(Problem.CROWD, place)
                return None
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
    category = _key(file, _given(entry, "category_id"), place)
    box = entry.get("bbox")
    if box:
        found = as_box(box)
        if any(type(value) is str for value in box):
            file.findings.add(Problem.TEXT_NUMBER, f"{place}: bbox")
    else:
        outline = entry.get("hull", "no bbox")
        if isinstance(outline, str):
            raise ValueError(outline)
        found = outline
        file.findings.add(Problem.POLYGON, place)
    if "has_key_points" in entry:
        file.findings.add(Problem.KEY_POINTS, place)
    return CocoObject(position, category, found)


def _given(entry: dict[str, Any], name: str) -> Any:
    if name not in entry:
        raise ValueError(f"has no {name}")
    return entry[name]


def _key(file: CocoFile, value: Any, place: str) -> Key:
    key = as_key(value)
    if isinstance(value, str) and isinstance(key, int):
        file.findings.add(Problem.TEXT_NUMBER, f"{place}: id {value}")
    return key
