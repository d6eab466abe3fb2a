"""Find images and their masks in folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.data.walk_images import is_hidden, walk_images
from lightning_prune.errors import DataError
from lightning_prune.files.file_error import printable
from lightning_prune.vision.mask_file import MASK_SUFFIXES

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Splits, and the names their folders may have."""
_ENDINGS = ("_mask", "_label", "_labelIds")
_LAYOUT = "root/train/images and root/train/masks, or root/images/train and root/masks/train"


@dataclass(frozen=True)
class MaskFolders:
    """Where the images and masks of a split are."""

    images: Path
    masks: Path


@dataclass(frozen=True)
class MaskPair:
    """An image file and its mask."""

    image: Path
    mask: Path


def find_splits(root: Path) -> dict[str, MaskFolders]:
    """Return the folders of each split that is there.

    Raises:
        DataError: ``root`` is no folder, or has no training or no validation split.
    """
    if not os.path.isdir(root):
        what = "is a file" if os.path.exists(root) else "does not exist"
        raise DataError(f"data root {root} {what}: pass the folder with images and masks")
    found: dict[str, MaskFolders] = {}
    for split, names in SPLITS.items():
        for name in names:
            for images, masks in (
                (root / name / "images", root / name / "masks"),
                (root / "images" / name, root / "masks" / name),
            ):
                if os.path.isdir(images) and os.path.isdir(masks):
                    found.setdefault(split, MaskFolders(images, masks))
    for split in ("train", "val"):
        if split not in found:
            there = ", ".join(sorted(os.listdir(root))[:12]) or "nothing"
            raise DataError(
                f"{root} has no split `{split}`: wanted are {_LAYOUT} (for val and test alike); it "
                f"holds {printable(there, 300)}"
            )
    return found


def pair_up(folders: MaskFolders, findings: Findings) -> list[MaskPair]:
    """Return the images of a split that have a mask, sorted by name.

    The mask of ``a/x.jpg`` is ``a/x.png`` in the folder of the masks, or ``a/x_mask.png``.

    Args:
        folders: Where to look, with all subfolders.
        findings: Takes images without mask, masks without image, and what is left out.

    Raises:
        DataError: there is no image, no mask, or an image has several masks.
    """
    images = walk_images(folders.images, findings)
    if not images:
        raise DataError(f"no image in {folders.images}")
    masks: dict[Path, Path] = {}
    for path in sorted(_files(folders.masks)):
        if path.suffix.lower() in MASK_SUFFIXES:
            key = path.relative_to(folders.masks).with_suffix("")
            _refuse_two(path, masks.get(key))
            masks[key] = path
    if not masks:
        raise DataError(_no_mask(folders.masks))
    pairs, used = [], set()
    for path in images:
        key = path.relative_to(folders.images).with_suffix("")
        names = [key, *(key.with_name(key.name + ending) for ending in _ENDINGS)]
        there = [name for name in names if name in masks]
        if not there:
            findings.add(Problem.NO_MASK, f"{path} (wanted: {folders.masks / key}.png)")
            continue
        _refuse_two(masks[there[0]], masks[there[1]] if len(there) > 1 else None)
        pairs.append(MaskPair(path, masks[there[0]]))
        used.add(there[0])
    for key in sorted(masks.keys() - used):
        findings.add(Problem.MASK_ALONE, str(masks[key]))
    if not pairs:
        raise DataError(
            f"not one image in {folders.images} has a mask in {folders.masks}: the mask of "
            f"{images[0].name} must be called {images[0].stem}.png, and there is "
            f"{next(iter(masks.values())).name}"
        )
    return pairs


def _no_mask(folder: Path) -> str:
    known = ", ".join(sorted(MASK_SUFFIXES))
    lossy = [path for path in _files(folder) if path.suffix.lower() in (".jpg", ".jpeg", ".webp")]
    why = (
        f"; {lossy[0].name} is of a format that changes values: save masks as PNG" if lossy else ""
    )
    return f"no mask in {folder} (known are {known}){why}"


def _refuse_two(path: Path, other: Path | None) -> None:
    if other is not None:
        raise DataError(f"{other} and {path} are masks of one image: remove one of them")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, each folder once, without hidden ones."""
    read = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in read:
            folders.clear()
            continue
        read.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(place, name) for name in names if not is_hidden(name))
