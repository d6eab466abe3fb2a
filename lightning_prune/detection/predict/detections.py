"""What a detector found on one image."""

import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lightning_prune.data.images import read_image
from lightning_prune.detection.predict.draw_boxes import draw_boxes
from lightning_prune.files import write_bytes

DRAWN_SUFFIXES = {".bmp": "BMP", ".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections on one image, best first, on the CPU.

    Attributes:
        boxes: (n, 4) float32: x1, y1, x2, y2 in pixels of the original, upright image.
        scores: (n,) float32, in [0, 1].
        labels: (n,) int64, the classes.
        names: The names of all classes of the model.
        height: Of the original image, in pixels.
        width: Of the original image, in pixels.
        path: The file of the image, or None.
        image: The image, (H, W, 3) uint8, where there is no file.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]
    height: int
    width: int
    path: Path | None = None
    image: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        where = "" if self.path is None else f" on {self.path}"
        return f"Detections({self.summary()}{where})"

    @property
    def class_names(self) -> list[str]:
        """Return the name of the class of each detection."""
        return [self.names[label] for label in self.labels.tolist()]

    def summary(self) -> str:
        """Count the detections of each class: ``3 person, 1 dog``."""
        counts = Counter(self.labels.tolist())
        parts = (f"{count} {self.names[label]}" for label, count in sorted(counts.items()))
        return ", ".join(parts) or "nothing"

    def draw(self) -> Image.Image:
        """Return the image with a box, a class and a confidence for each detection.

        Raises:
            ImageError: the file of the image cannot be read any more.
        """
        image = self.image
        if image is None:
            assert self.path is not None
            image = read_image(self.path)
        scores = self.scores.tolist()
        texts = [f"{name} {s:.2f}" for name, s in zip(self.class_names, scores, strict=True)]
        return draw_boxes(image, self.boxes.tolist(), self.labels.tolist(), texts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: ``file``, ``width``, ``height`` and ``detections``.

        Each of these has ``box`` (x1, y1, x2, y2 in pixels), ``score``, ``label`` and ``name``.
        """
        columns = (self.boxes.tolist(), self.scores.tolist(), self.labels.tolist())
        found = [
            {
                "box": [round(value, 3) for value in box],
                "score": round(score, 6),
                "label": label,
                "name": self.names[label],
            }
            for box, score, label in zip(*columns, strict=True)
        ]
        file = None if self.path is None else str(self.path)
        return {"file": file, "width": self.width, "height": self.height, "detections": found}

    def to_json(self) -> str:
        """Return ``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_yolo(self) -> str:
        """Return lines ``class cx cy w h confidence``, as fractions of the image.

        Without the last column they are labels that a data set can have.
        """
        size = self.boxes.new_tensor([self.width, self.height])
        near, far = self.boxes.double()[:, :2] / size, self.boxes.double()[:, 2:] / size
        lines = zip(
            self.labels.tolist(), ((near + far) / 2).tolist(), (far - near).tolist(),
            self.scores.tolist(), strict=True,
        )  # fmt: skip
        return "".join(
            f"{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f} {score:.6f}\n"
            for label, (x, y), (w, h), score in lines
        )

    def save(self, path: str | Path) -> Path:
        """Write the image with its boxes (.jpg, .png, .webp, .bmp), .json, or YOLO's .txt.

        Raises:
            ValueError: the file has another suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            write_bytes(path, self.to_json().encode())
        elif suffix == ".txt":
            write_bytes(path, self.to_yolo().encode())
        elif suffix in DRAWN_SUFFIXES:
            content = io.BytesIO()
            options = {"quality": 92} if DRAWN_SUFFIXES[suffix] in ("JPEG", "WEBP") else {}
            self.draw().save(content, DRAWN_SUFFIXES[suffix], **options)
            write_bytes(path, content.getvalue())
        else:
            known = ", ".join(sorted({*DRAWN_SUFFIXES, ".json", ".txt"}))
            raise ValueError(f"{path}: pass a file that ends in {known}")
        return path
