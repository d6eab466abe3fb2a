"""What of a network's answer becomes a detection."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.arguments import Count, Overlap, Threshold
from lightning_prune.detection.network.network import LARGEST_STRIDE
from lightning_prune.validation import validated


@validated
@dataclass(frozen=True)
class PredictionOptions:
    """Thresholds of a prediction.

    Attributes:
        confidence: Detections must be above it, in [0, 1).
        iou: A box that overlaps a better one of its class by more is dropped, in [0, 1].
        max_detections: Largest number per image.
        classes: Classes that are wanted, by number; None: all.
        multi_label: Whether a box may have several classes, as in validation, instead of its best.
        clip: Whether boxes end at the border of the image.

    Raises:
        ValueError: a value is out of range.
    """

    confidence: Threshold = 0.25
    iou: Overlap = 0.7
    max_detections: Count = 300
    classes: frozenset[int] | None = None
    multi_label: bool = False
    clip: bool = True


def class_numbers(
    wanted: Sequence[str | int] | None, names: Sequence[str]
) -> frozenset[int] | None:
    """Return the numbers of classes that are given by name or number; None: all.

    Raises:
        ValueError: there is no such class.

    >>> sorted(class_numbers(["dog", 0], ["cat", "cow", "dog"]))
    [0, 2]
    """
    if wanted is None:
        return None
    found: set[int] = set()
    for word in [wanted] if isinstance(wanted, str | int) else wanted:
        if isinstance(word, str) and word in names:
            found.update(i for i, name in enumerate(names) if name == word)
        elif str(word).isdecimal() and int(word) < len(names):
            found.add(int(word))
        else:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ValueError(
                f"classes: {word!r} is no class of the model: pass names ({shown}) or numbers "
                f"from 0 to {len(names) - 1}"
            )
    return frozenset(found)


def check_image_size(size: int) -> int:
    """Return the side of a square input.

    Raises:
        ValueError: no network of this kind takes it.
    """
    if not LARGEST_STRIDE <= size <= 16384 or size % LARGEST_STRIDE:
        raise ValueError(
            f"image_size={size}: pass a multiple of {LARGEST_STRIDE} from {LARGEST_STRIDE} to 16384"
        )
    return size
