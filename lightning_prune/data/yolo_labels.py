"""Read the files of a data set in Ultralytics' layout: data.yaml, picture lists, label files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_prune.data.boxes import check_boxes
from lightning_prune.data.checks import DataError, Findings, Problem
from lightning_prune.data.images import IMAGE_SUFFIXES
from lightning_prune.data.records import ImageRecord

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class YoloLayout:
    """What a data.yaml says.

    Attributes:
        file: the data.yaml.
        base: folder its entries are relative to.
        entries: for each split present, its folders or list files as written.
        names: class names, in the order of their ids.
    """

    file: Path
    base: Path
    entries: dict[str, list[str]]
    names: list[str]


def read_layout(root: str | Path) -> YoloLayout:
    """Read the data.yaml of a data set.

    Args:
        root: the folder of the data set, or its yaml file.

    Raises:
        DataError: no such file, or it does not describe a data set.
    """
    file = _find_yaml(Path(root).expanduser())
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no keys: it needs train, val and names")
    entries = {}
    for split in SPLITS:
        entry = content.get(split)
        if entry:
            entries[split] = [str(each) for each in (entry if isinstance(entry, list) else [entry])]
    for split in ("train", "val"):
        if split not in entries:
            raise DataError(
                f"{file} has no entry `{split}`: it has {', '.join(map(str, content))}. Add "
                f"`{split}:` with a folder of pictures, a list of folders or a .txt list"
            )
    return YoloLayout(file, _base(file, content.get("path")), entries, _names(file, content))


def _find_yaml(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(f"data root {root} does not exist: pass a folder with data.yaml, or a yaml")
    candidates = [root / "data.yaml", root / "data.yml"]
    found = [each for each in candidates if each.is_file()]
    found = found or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if not found:
        raise DataError(f"{root} holds no data.yaml: pass the folder or the file that describes it")
    if len(found) > 1 and found[0].name not in ("data.yaml", "data.yml"):
        names = ", ".join(each.name for each in found)
        raise DataError(f"{root} holds several yaml files ({names}): pass the one meant as root")
    return found[0]


def _base(file: Path, path: object) -> Path:
    folder = file.parent.resolve()
    if path in (None, "", "."):
        return folder
    base = Path(str(path)).expanduser()
    candidates = [base] if base.is_absolute() else [folder / base, Path.cwd() / base]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.resolve()
    tried = " and ".join(str(each) for each in candidates)
    raise DataError(f"{file}: `path: {path}` does not exist (tried {tried}): correct it or drop it")


def _names(file: Path, content: dict[object, object]) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        return [f"class{index}" for index in range(count)]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(
                f"{file}: the keys of `names` are {list(names)}: number them 0, 1, 2..."
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: `names` is {names!r}: give a list of class names or `nc`")
    if count is not None and count != len(names):
        raise DataError(f"{file}: nc is {count}, but `names` has {len(names)} entries: correct one")
    return [str(name) for name in names]


def list_images(layout: YoloLayout, split: str) -> list[Path]:
    """List the pictures of a split, folders in order, each sorted by name.

    Raises:
        DataError: a folder or list does not exist, or there is no picture at all.
    """
    images: dict[Path, None] = {}
    for entry in layout.entries[split]:
        place = _locate(layout, split, entry)
        images.update(dict.fromkeys(_read_list(place) if place.is_file() else _walk(place)))
    if not images:
        raise DataError(
            f"{layout.file}: the split `{split}` is empty: no picture in "
            f"{', '.join(layout.entries[split])} (known are {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return list(images)


def _locate(layout: YoloLayout, split: str, entry: str) -> Path:
    place = layout.base / Path(entry).expanduser()
    # exports of some labelling services say ../train/images and mean ./train/images
    inside = layout.base / entry.removeprefix("../")
    for candidate in (place, inside):
        if candidate.exists():
            return candidate
    raise DataError(
        f"{layout.file}: `{split}: {entry}` does not exist (looked for {place}): correct the "
        "entry, or `path`"
    )


def _walk(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _read_list(file: Path) -> list[Path]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [file.parent / line.strip() for line in lines if line.strip()]


def label_path(image: Path) -> Path:
    """Tell where the labels of a picture are: the last folder `images` becomes `labels`.

    >>> label_path(Path("/d/images/train/a.jpg")).as_posix()
    '/d/labels/train/a.txt'
    """
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_records(
    images: Sequence[Path], num_classes: int, findings: Findings
) -> tuple[list[ImageRecord], set[Path]]:
    """Read the labels of every picture.

    Args:
        images: picture files.
        num_classes: number of classes K.
        findings: takes the problems.

    Returns:
        one record per picture, and the pictures with an object that cannot be used.

    Raises:
        DataError: a label folder does not exist, or not one picture has a label file.
    """
    folders = {label_path(image).parent for image in images}
    missing = sorted(str(folder) for folder in folders if not folder.is_dir())
    if missing:
        raise DataError(
            f"label folder missing: {', '.join(missing)}. The labels of .../images/x.jpg belong "
            "in .../labels/x.txt (an empty file for a picture without objects)"
        )
    records, unusable = [], set()
    for image in images:
        file = label_path(image)
        lines = _label_lines(file)
        if lines is None:
            findings.add(Problem.NO_LABEL_FILE, f"{image} (no {file.name})")
        parsed, clean = _parse(lines or [], file, findings)
        labels, boxes, complete = check_boxes(parsed, num_classes, findings)
        records.append(ImageRecord(image, labels, boxes))
        if not (clean and complete):
            unusable.add(image)
    if findings.count(Problem.NO_LABEL_FILE) == len(images):
        raise DataError(
            f"no label file for any of {len(images)} pictures in {', '.join(map(str, folders))}: "
            "they are named like the pictures, with the suffix .txt"
        )
    return records, unusable


def _label_lines(file: Path) -> list[str] | None:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except FileNotFoundError:
        return None


def _parse(
    lines: Sequence[str], file: Path, findings: Findings
) -> tuple[list[tuple[int, tuple[float, float, float, float], str]], bool]:
    objects, clean = [], True
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        place = f"{file}:{number}"
        try:
            values = [float(column) for column in columns]
        except ValueError:
            values = []
        is_polygon = len(values) >= 7 and len(values) % 2 == 1
        if not (len(values) == 5 or is_polygon) or not values[0].is_integer():
            findings.add(Problem.MALFORMED, f"{place}: {line.strip()[:60]!r}")
            clean = False
            continue
        if is_polygon:
            findings.add(Problem.POLYGON, place)
        box = _hull(values[1:]) if is_polygon else (values[1], values[2], values[3], values[4])
        objects.append((int(values[0]), box, place))
    return objects, clean


def _hull(polygon: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = polygon[0::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
