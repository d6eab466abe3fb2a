"""Finds the images and videos that a command line names."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.data.images import image_suffixes

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts"}
    | {".webm", ".wmv"}
)


@dataclass(frozen=True)
class Source:
    """A file to predict on.

    Attributes:
        path: The file.
        name: Its name below the folder that was given, for the results.
        video: Whether it is a video.
    """

    path: Path
    name: Path
    video: bool


def find_sources(words: Sequence[str]) -> tuple[list[Source], int]:
    """Return the images and videos in files, folders and patterns, each once.

    Folders are searched with all folders in them, hidden ones left out. A file that is named
    itself is taken whatever its suffix.

    Returns:
        The sources, and how many other files were passed over.

    Raises:
        ValueError: something does not exist, or there is neither image nor video.
    """
    found: dict[Path, Source] = {}
    others = 0
    for word in words:
        for path in _matches(word):
            base = path if path.is_dir() else path.parent
            for file in _files(path):
                suffix = file.suffix.lower()
                known = suffix in image_suffixes() or suffix in VIDEO_SUFFIXES
                if not known and (path.is_dir() or _is_pattern(word)):
                    others += 1
                    continue
                source = Source(file, file.relative_to(base), suffix in VIDEO_SUFFIXES)
                # Patterns go around in circles of linked folders.
                found.setdefault(Path(os.path.realpath(file.parent), file.name), source)
    if not found:
        raise ValueError(
            f"no image or video in {', '.join(words)}"
            + (f" ({others} other files)" if others else "")
            + f": known are {' '.join(sorted(image_suffixes() | VIDEO_SUFFIXES))}"
        )
    return list(found.values()), others


def find_images(folder: Path) -> list[Path]:
    """Return the images in a folder and the folders in it, sorted.

    Raises:
        ValueError: there is none.
    """
    images = [file for file in _files(folder) if file.suffix.lower() in image_suffixes()]
    if not images:
        raise ValueError(f"no image in {folder}")
    return images


def _is_pattern(word: str) -> bool:
    return glob.has_magic(word) and not Path(word).expanduser().exists()


def _matches(word: str) -> list[Path]:
    if "://" in word:
        raise ValueError(f"{word}: addresses are not read: download the file first")
    path = Path(word).expanduser()
    if path.exists():
        return [path]
    if not glob.has_magic(word):
        extra = ": cameras are not read, record a video first" if word.isdecimal() else ""
        raise ValueError(f"no file, folder or pattern {word}{extra}")
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]


def _files(path: Path) -> Iterator[Path]:
    """Walk through a folder, links included, each folder once."""
    if not path.is_dir():
        yield path
        return
    seen = set()
    for place, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)
