"""List the image files in a folder and its subfolders."""

import os
from pathlib import Path

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.data.images import (
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    OTHER_SUFFIXES,
    image_suffixes,
)
from lightning_prune.errors import DataError

_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}


def walk_images(folder: Path, findings: Findings) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by name.

    Symbolic links are followed, after what is no link; every folder is read once. Hidden files
    and folders, and those that operating systems leave, are left out.

    Args:
        folder: Where to look.
        findings: Takes what is left out.

    Raises:
        DataError: a folder cannot be read.
    """
    suffixes, images = image_suffixes(), []
    read: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in read:
            findings.add(Problem.LINKED, str(current))
            continue
        read.add((status.st_dev, status.st_ino))
        for entry in folder_entries(current):
            path = current / entry.name
            hidden = is_hidden(entry.name)
            if entry.is_dir():
                if hidden:
                    _note_hidden(path, findings)
                elif not entry.is_symlink():
                    folders.append(path)
                elif _leads_back(path, folder):
                    findings.add(Problem.LINKED, str(path))
                else:
                    links.append(path)
            elif path.suffix.lower() in suffixes:
                if hidden:
                    findings.add(Problem.HIDDEN_IMAGE, str(path))
                else:
                    images.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES | HEIF_SUFFIXES | OTHER_SUFFIXES:
                findings.add(Problem.OTHER_FORMAT, str(path))
    return sorted(images)


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a hidden file, or of a folder that a system leaves."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def folder_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List what is in a folder, sorted by name.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _leads_back(link: Path, folder: Path) -> bool:
    # to the folder itself or one above it, which holds the images of other splits
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(link))


def _note_hidden(folder: Path, findings: Findings) -> None:
    for entry in folder_entries(folder):
        if Path(entry.name).suffix.lower() in image_suffixes():
            findings.add(Problem.HIDDEN_IMAGE, str(folder / entry.name))
