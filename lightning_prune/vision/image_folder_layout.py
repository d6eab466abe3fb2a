"""Find classes and splits in a folder of images: root/train/CLASS/x.jpg, or root/CLASS/x.jpg."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.data.images import image_suffixes
from lightning_prune.data.walk_images import folder_entries, is_hidden, walk_images
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import printable

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
WHOLE = "all"
"""The one split of a folder that has class folders only."""


class LabelledFile(NamedTuple):
    """An image file and its class.

    Attributes:
        path: The file.
        label: Index of its class.
    """

    path: Path
    label: int


@dataclass(frozen=True)
class ImageFolderLayout:
    """What a folder of images holds.

    Attributes:
        root: The folder.
        names: Class names, sorted: those of the training split.
        files: For each split its images, by class and name; ``all`` where there are class folders
            only.
        findings: What was left out or is odd.
        unusable: For each split the files of classes that the training split lacks.
    """

    root: Path
    names: list[str]
    files: dict[str, list[LabelledFile]]
    findings: Findings = field(repr=False)
    unusable: dict[str, int] = field(default_factory=dict)


def read_image_folder(root: str | Path) -> ImageFolderLayout:
    """List the classes and images of a folder, without opening an image.

    ``root`` has folders ``train``, ``val`` (or ``valid``, ``validation``) and ``test`` with class
    folders in them, or class folders only. Images in subfolders of a class belong to it.

    Raises:
        DataError: there is no such folder, no class, one class only, or it is another layout.
    """
    root = Path(root).expanduser()
    folders = _subfolders(_existing(root))
    splits = _split_folders(root, folders)
    findings = Findings()
    if not splits:
        _refuse_other_layouts(root, folders)
    found = {
        split: _class_files(folder, findings) for split, folder in (splits or {WHOLE: root}).items()
    }
    first = found.get("train", found.get(WHOLE, {}))
    names = _class_names(splits.get("train", root), first, findings)
    if splits:
        _compare_classes(found, names, findings)
    known = {name: index for index, name in enumerate(names)}
    files = {
        split: [LabelledFile(path, known[n]) for n in names for path in classes.get(n, ())]
        for split, classes in found.items()
    }
    for split, of_split in files.items():
        if not of_split:
            raise DataError(f"{splits.get(split, root)}: no image of a known class is in it")
    unusable = {
        split: sum(len(paths) for name, paths in classes.items() if name not in known)
        for split, classes in found.items()
    }
    _note_same_files(root, files, findings)
    return ImageFolderLayout(root, names, files, findings, unusable)


def _existing(root: Path) -> Path:
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"root={root} is a file: give the folder of the images, unpacked")
    raise DataError(f"root={root}: there is no such folder")


def _subfolders(folder: Path) -> dict[str, Path]:
    found = {
        entry.name: folder / entry.name
        for entry in folder_entries(folder)
        if entry.is_dir() and not is_hidden(entry.name)
    }
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{folder}: the name of the folder {printable(name, 100)} is no UTF-8: rename it"
            ) from None
    return found


def _split_folders(root: Path, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folders of splits; none where the folders are classes."""
    found: dict[str, Path] = {}
    for split, known in SPLIT_NAMES.items():
        named = [name for name in folders if name.lower() in known]
        if len(named) > 1 and any(_subfolders(folders[name]) for name in named):
            raise DataError(
                f"{root} has both {' and '.join(named)}: which one is the {split} split? Remove "
                "or rename the other"
            )
        if named:
            found[split] = folders[named[0]]
    if "train" not in found:
        if found and len(found) == len(folders):
            raise DataError(
                f"{root} has {', '.join(path.name for path in found.values())} and no train: give "
                "the folder that holds train, with a folder for each class in it"
            )
        return {}
    if _subfolders(found["train"]):
        return found
    if set(folders.values()) > set(found.values()):
        return {}  # train is a class among others
    raise DataError(
        f"{found['train']} has no class folders: an image is train/CLASS/x.jpg, its class the name "
        "of the folder"
    )


def _refuse_other_layouts(root: Path, folders: Mapping[str, Path]) -> None:
    if folders.keys() and folders.keys() <= {"images", "labels", "annotations"}:
        raise DataError(
            f"{root} has {', '.join(folders)}, a data set for detection (data=yolo_folder or "
            "data=coco_json): classes are folders here, CLASS/x.jpg or train/CLASS/x.jpg"
        )


def _class_files(folder: Path, findings: Findings) -> dict[str, list[Path]]:
    """Return the images of each class folder; images beside them and empty ones are said."""
    suffixes = image_suffixes()
    for entry in folder_entries(folder):
        if Path(entry.name).suffix.lower() in suffixes and not entry.is_dir():
            kind = Problem.HIDDEN_IMAGE if is_hidden(entry.name) else Problem.LOOSE_IMAGE
            findings.add(kind, str(folder / entry.name))
    found: dict[str, list[Path]] = {}
    for name, place in _subfolders(folder).items():
        paths = walk_images(place, findings)
        if paths:
            found[name] = paths
        else:
            findings.add(Problem.EMPTY_CLASS, str(place))
    return found


def _class_names(
    folder: Path, classes: Mapping[str, Sequence[Path]], findings: Findings
) -> list[str]:
    names = sorted(classes)
    if not names:
        what = findings.message()
        raise DataError(
            f"{folder} holds no images in class folders: an image is CLASS/x.jpg, its class the "
            f"name of the folder (known are {', '.join(sorted(image_suffixes()))})"
            + (f"\n{what}" if what else "")
        )
    if len(names) == 1:
        inner = Path(folder, names[0])
        hint = f": is data.root={inner} meant?" if len(_subfolders(inner)) > 1 else ""
        raise DataError(
            f"{folder} has one class folder with images, {names[0]}; a classifier needs two{hint}"
        )
    alike: dict[str, str] = {}
    for name in names:
        plain = "".join(name.split()).lower()
        if plain in alike:
            findings.add(Problem.LIKE_CLASS, f"{folder}: {alike[plain]!r} and {name!r}")
        alike[plain] = name
    return names


def _compare_classes(
    found: Mapping[str, Mapping[str, Sequence[Path]]], names: Sequence[str], findings: Findings
) -> None:
    for split, classes in found.items():
        for name in sorted(classes.keys() - set(names)):
            findings.add(Problem.UNTRAINED_CLASS, f"{split}: {name!r}, {len(classes[name])} images")
        for name in names:
            if name not in classes:
                findings.add(Problem.ABSENT_CLASS, f"{split}: {name!r}")


def _note_same_files(
    root: Path, files: Mapping[str, Sequence[LabelledFile]], findings: Findings
) -> None:
    """Find files of one class and name that have the same bytes in training and elsewhere."""
    trained = {(file.label, file.path.name): file.path for file in files.get("train", ())}
    for split in files.keys() - {"train"}:
        for file in files[split]:
            other = trained.get((file.label, file.path.name))
            if other is not None and _same_content(other, file.path):
                findings.add(Problem.IN_TWO_SPLITS, str(file.path))


def _same_content(first: Path, second: Path) -> bool:
    try:
        if os.path.samefile(first, second):
            return True
        if os.path.getsize(first) != os.path.getsize(second):
            return False
        return first.read_bytes() == second.read_bytes()
    except OSError:
        return False  # that it cannot be read is said where images are looked at
