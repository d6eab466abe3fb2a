"""Read COCO's annotation files."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.data.boxes import check_boxes
from lightning_prune.data.checks import DataError, Findings, Problem
from lightning_prune.data.records import ImageRecord

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoFile:
    """The parts of an annotation file a detector needs.

    Attributes:
        path: of the file.
        images: entries with `id`, `file_name`, `width`, `height`.
        annotations: entries with `image_id`, `category_id`, `bbox` (x, y, w, h in pixels).
        categories: category id -> name, sorted by id.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]


def read_coco(path: Path) -> CocoFile:
    """Read one annotation file.

    Raises:
        DataError: it is absent, no JSON, or lacks images, annotations or categories.
    """
    if not path.is_file():
        raise DataError(f"annotation file {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    required = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), list) for key in required
    ):
        raise DataError(f"{path}: an annotation file holds the lists {', '.join(required)}")
    _require_keys(path, "images", content["images"], ("id", "file_name", "width", "height"))
    _require_keys(path, "annotations", content["annotations"], ("image_id", "category_id", "bbox"))
    _require_keys(path, "categories", content["categories"], ("id", "name"))
    if not content["images"]:
        raise DataError(f"{path} is empty: it lists no picture")
    categories = {each["id"]: str(each["name"]) for each in content["categories"]}
    return CocoFile(
        path, content["images"], content["annotations"], dict(sorted(categories.items()))
    )


def _require_keys(
    path: Path, name: str, entries: list[dict[str, Any]], keys: tuple[str, ...]
) -> None:
    for position, entry in enumerate(entries):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise DataError(f"{path}: {name}[{position}] has no {', '.join(missing)}")


def coco_records(
    file: CocoFile, folder: Path, class_of: Mapping[int, int], findings: Findings
) -> tuple[list[ImageRecord], dict[Path, tuple[int, int]], set[Path]]:
    """Turn an annotation file into records.

    Args:
        file: the annotations.
        folder: where the pictures lie.
        class_of: category id -> class in 0..K-1.
        findings: takes the problems.

    Returns:
        one record per picture; the annotated (height, width) of each; the pictures with an object
        that cannot be used.
    """
    objects = _by_image(file, findings)
    records, sizes, unusable = [], {}, set()
    for entry in file.images:
        path = folder / entry["file_name"]
        width, height = entry["width"], entry["height"]
        if width <= 0 or height <= 0:
            raise DataError(f"{file.path}: {entry['file_name']} has size {width} x {height}")
        boxes, clean = [], True
        for position, annotation in objects.pop(entry["id"], []):
            place = f"{file.path.name}, annotations[{position}] ({entry['file_name']})"
            box = _normalised(annotation["bbox"], width, height)
            if box is None:
                findings.add(Problem.MALFORMED, f"{place}: bbox {annotation['bbox']!r}")
                clean = False
                continue
            boxes.append((class_of.get(annotation["category_id"], -1), box, place))
        labels, array, complete = check_boxes(boxes, len(class_of), findings)
        records.append(ImageRecord(path, labels, array))
        sizes[path] = (int(height), int(width))
        if not (clean and complete):
            unusable.add(path)
    for image_id, orphans in objects.items():
        findings.add(
            Problem.MALFORMED,
            f"{file.path.name}: {len(orphans)} annotations of image id {image_id}, which is absent",
        )
    return records, sizes, unusable


def _by_image(
    file: CocoFile, findings: Findings
) -> defaultdict[int, list[tuple[int, dict[str, Any]]]]:
    objects: defaultdict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for position, annotation in enumerate(file.annotations):
        if annotation.get("iscrowd", 0):
            findings.add(Problem.CROWD, f"{file.path.name}, annotations[{position}]")
        else:
            objects[annotation["image_id"]].append((position, annotation))
    return objects


def _normalised(bbox: object, width: float, height: float) -> Box | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(value, int | float) for value in bbox):
        return None
    x, y, w, h = bbox
    return (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
