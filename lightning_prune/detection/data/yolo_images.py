"""Find the images of a data set in Ultralytics' layout: folders and lists."""

import os
from collections import Counter
from itertools import islice
from pathlib import Path

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.data.images import image_suffixes
from lightning_prune.data.walk_images import walk_images
from lightning_prune.detection.data.yolo_layout import YoloLayout, download_hint, variants
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_text import MEGABYTE, read_text

_LONGEST_LIST = 512 * MEGABYTE


def list_images(layout: YoloLayout, split: str, findings: Findings | None = None) -> list[Path]:
    """List the images of a split, folders in order, each sorted by name.

    Args:
        layout: Where they are.
        split: "train", "val" or "test".
        findings: Takes what is left out.

    Raises:
        DataError: a folder or list does not exist, or there is no image at all.
    """
    findings = Findings() if findings is None else findings
    images: dict[Path, None] = {}
    for place in places(layout, split):
        if os.path.isdir(place):
            found = walk_images(place, findings)
        else:
            found = read_image_list(place, layout.base, findings)
        images.update(dict.fromkeys(found))
    if not images:
        raise DataError(
            f"{layout.file}: the split `{split}` is empty: no image in "
            f"{', '.join(layout.entries[split])} (known are {', '.join(sorted(image_suffixes()))}"
            f"; {_what_is_there(layout, split)})"
        )
    return list(images)


def places(layout: YoloLayout, split: str) -> list[Path]:
    """Return the folders and lists of a split.

    Raises:
        DataError: one of them does not exist.
    """
    return [_locate(layout, split, entry) for entry in layout.entries[split]]


def _locate(layout: YoloLayout, split: str, entry: str) -> Path:
    bases = dict.fromkeys([layout.base, layout.file.parent.resolve()])
    places = []
    for text in variants(os.path.expanduser(entry)):
        # exports of some labelling services say ../train/images and mean ./train/images
        places += [base / part for part in (text, text.removeprefix("../")) for base in bases]
    for place in places:
        if os.path.exists(place):
            return place
    there = ", ".join(sorted(os.listdir(layout.base))[:12])
    raise DataError(
        f"{layout.file}: `{split}: {printable(entry, 300)}` does not exist (looked for "
        f"{printable(str(places[0]), 500)}): correct the entry, or `path`; {layout.base} holds "
        f"{printable(there, 300) or 'nothing'}{download_hint(layout.file)}"
    )


def _what_is_there(layout: YoloLayout, split: str) -> str:
    kinds: Counter[str] = Counter()
    for place in places(layout, split):
        if os.path.isdir(place):
            kinds.update(p.suffix.lower() or p.name for p in islice(place.rglob("*"), 10_000))
    shown = ", ".join(f"{count} {printable(kind, 20)}" for kind, count in kinds.most_common(5))
    return f"there are {shown}" if shown else "there is nothing"


def read_image_list(file: Path, base: Path, findings: Findings) -> list[Path]:
    """Read a list of images, one path a line; empty lines and those that begin with # are none.

    A path is relative to the folder of the list, or to `base`.

    Args:
        file: The list.
        base: The second folder that paths may be relative to.
        findings: Takes the paths that lead to no image.

    Raises:
        DataError: it is no list, or not one path leads to an image.
    """
    try:
        text = read_text(file, min(_LONGEST_LIST, max(1, os.path.getsize(file))))
    except FileError as error:
        raise DataError(f"{error} (wanted: a list of images)") from error
    if text.lstrip().startswith("{"):
        raise DataError(
            f"{file} is JSON, no list of images: COCO's annotations are read by data=coco_json"
        )
    images: dict[Path, None] = {}
    missing, first, lines = 0, "", text.splitlines()
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        path = _find_listed(line, [file.parent, base])
        if path is None:
            is_folder = any(os.path.isdir(each / line) for each in (file.parent, base))
            what = " (a folder)" if is_folder else ""
            place = f"{file}:{number}: {printable(line, 100)}{what}"
            missing, first = missing + 1, first or place
            findings.add(Problem.MISSING_IMAGE, place)
        elif path in images:
            findings.add(Problem.LISTED_TWICE, f"{file}:{number}: {line}")
        else:
            images[path] = None
    if missing and not images:
        raise DataError(
            f"{file}: not one of {missing} lines leads to an image. The first is {first}; paths "
            f"are relative to {file.parent} or {base}"
        )
    return list(images)


def _find_listed(line: str, bases: list[Path]) -> Path | None:
    for text in variants(line) + variants(line.strip("\"'")):
        for base in bases:
            place = base / os.path.expanduser(text)
            # a link to nothing is said where images are read, with what it leads to
            if os.path.lexists(place) and not os.path.isdir(place):
                return place
    return None
