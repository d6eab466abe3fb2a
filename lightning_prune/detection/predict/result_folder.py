"""The folder that predictions are written to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_prune.detection.predict.detections import DRAWN_SUFFIXES, Detections
from lightning_prune.files import write_bytes

RESULTS = "predictions.json"


def numbered_folder(parent: Path) -> Path:
    """Make and return the first of ``1``, ``2``, ... in a folder that does not exist yet."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = [int(each.name) for each in parent.iterdir() if each.name.isdecimal()]
    number = max(numbers, default=0) + 1
    while True:
        folder = parent / str(number)
        try:
            folder.mkdir()
        except FileExistsError:  # another process was faster
            number += 1
        else:
            return folder


class ResultFolder:
    """Write images with boxes, label files and one JSON file.

    Args:
        folder: Where to; it must be empty, or not be there.
        facts: What stands at the top of the JSON file.
        draw: Whether images and videos are drawn.

    Attributes:
        folder: The folder.

    Raises:
        ValueError: there is something in the folder.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], draw: bool = True):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is there and not empty: give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._draw = folder, draw
        self._content: dict[str, Any] = {**facts, "images": [], "videos": [], "failed": []}
        self._taken: set[Path] = set()

    def add_image(self, detections: Detections, name: Path) -> None:
        """Write what was found on an image, under its name below the folder that was given."""
        self._content["images"].append(detections.to_dict())
        detections.save(self._free("labels", name, ".txt"))
        if self._draw:
            suffix = name.suffix if name.suffix.lower() in DRAWN_SUFFIXES else ".png"
            detections.save(self._free("images", name, suffix))

    def add_failure(self, file: Path, reason: str) -> None:
        """Record a file that could not be read."""
        self._content["failed"].append({"file": str(file), "reason": reason})

    def add_video(self, file: Path, rate: float, frames: Sequence[Mapping[str, Any]]) -> None:
        """Record what was found on the frames of a video."""
        self._content["videos"].append(
            {"file": str(file), "frames_per_second": rate, "frames": list(frames)}
        )

    def video_path(self, name: Path) -> Path | None:
        """Return where a video with boxes is to be written; None: nowhere."""
        if not self._draw:
            return None
        path = self._free("videos", name, ".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self) -> None:
        """Write the JSON file."""
        text = json.dumps(self._content, ensure_ascii=False, indent=1, allow_nan=False)
        write_bytes(self.folder / RESULTS, text.encode())

    def _free(self, part: str, name: Path, suffix: str) -> Path:
        """Return a path that no other image has: a.jpg and a.png would both be labels/a.txt."""
        path = self.folder / part / name.with_suffix(suffix)
        if path in self._taken:
            path = path.with_name(name.name + suffix)
        number = 2
        while path in self._taken:
            path = path.with_name(f"{name.name}-{number}{suffix}")
            number += 1
        self._taken.add(path)
        return path
