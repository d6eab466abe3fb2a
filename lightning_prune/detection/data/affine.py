"""Random affine view of an image and of the boxes in it."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from lightning_prune.detection.data.letterbox import PAD_VALUE

MIN_SIDE = 2.0  # pixels: a thinner remainder of an object shows nothing to learn
MIN_VISIBLE = 0.1  # fraction of a box that must stay inside the view


class View(NamedTuple):
    """An image and its boxes in pixels.

    Attributes:
        image: (H, W, 3) uint8.
        boxes: (M, 4) float64, x1, y1, x2, y2 in pixels.
        labels: (M,) int64.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def moved(self, image: np.ndarray, left: int, top: int) -> "View":
        """Return the view placed at (left, top) of another image, its boxes shifted with it."""
        return View(image, self.boxes + np.array([left, top, left, top]), self.labels)


def affine_matrix(
    centre: tuple[float, float],
    size: int,
    angle: float = 0.0,
    zoom: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Build the (2, 3) matrix that maps image pixels to pixels of a square view.

    A point p goes to  Z(zoom) R(angle) S(shear) (p - centre) + size / 2 + shift * size.

    Args:
        centre: The point of the image that ends up in the middle of the view, in pixels.
        size: Side of the view, in pixels.
        angle: Rotation, in degrees.
        zoom: Magnification, 1 = same size.
        shear: Horizontal and vertical shear, in degrees.
        shift: Displacement, as a fraction of the view.

    >>> affine_matrix((10.0, 10.0), 10, zoom=0.5).tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    shears = np.array(
        [[1.0, math.tan(math.radians(shear[0]))], [math.tan(math.radians(shear[1])), 1.0]]
    )
    linear = zoom * rotation @ shears
    middle = size / 2 + np.asarray(shift) * size
    return np.column_stack([linear, middle - linear @ np.asarray(centre)])


def warp(view: View, matrix: np.ndarray, size: int) -> View:
    """Show an image through `matrix` in a square of `size` pixels.

    The box of a turned or sheared object is the axis-aligned hull of its box. An object stays when
    at least a tenth of that hull lies inside the view and both its sides measure 2 pixels or more.
    """
    linear, offset = matrix[:, :2], matrix[:, 2]
    inverse = np.linalg.inv(linear)
    back = np.column_stack([inverse, -inverse @ offset])
    image = Image.fromarray(view.image).transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(back.ravel()),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(PAD_VALUE,) * 3,
    )
    corners = view.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ linear.T + offset  # (M, 4, 2)
    hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes, kept = crop_boxes(hulls, size)
    return View(np.asarray(image), boxes, view.labels[kept])


def crop_boxes(boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes (M, 4) to a square; return those worth keeping and the bool mask of them."""
    clipped = boxes.clip(0, size)
    sides, full_sides = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    visible = sides.prod(axis=1) >= MIN_VISIBLE * full_sides.prod(axis=1)
    kept = visible & (sides >= MIN_SIDE).all(axis=1)
    return clipped[kept], kept
