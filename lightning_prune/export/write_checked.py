"""An exported file that is written only if it computes what the network does."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_prune.export.batches import with_sides
from lightning_prune.export.formats import ExportFormat
from lightning_prune.files import write_bytes


def write_checked(
    path: str | Path,
    content: bytes,
    export_format: ExportFormat,
    difference: Callable[[Any, Sequence[int]], float],
    example_input: Any,
    batch: int | None,
    allowed: float,
    size_step: int | None = None,
) -> float:
    """Compare a converted network with what it was made from, and write it.

    They must agree on batches of 1 and 3 samples, and where height and width are free on a
    rectangle too.

    Args:
        path: Where to write; the file appears whole or not at all.
        content: What to write.
        export_format: Which kind of file it is.
        difference: Returns for an example input and batch sizes how far both are apart, as
            ``output_difference`` does.
        example_input: A tensor (B, ...), or a tuple or dict of arguments.
        batch: Number of samples the file takes at once; None: any number.
        allowed: Largest difference; see ``allowed_difference``.
        size_step: Height and width of images (B, C, H, W) are free, multiples of this;
            None: those of the example.

    Returns:
        The difference that was found.

    Raises:
        AssertionError: it is more than is allowed. Nothing is written, and an earlier file stays.
    """
    sizes = (1, 3) if batch is None else (batch,)
    differences = [difference(example_input, sizes)]
    if size_step is not None:
        rectangle = with_sides(example_input, 2 * size_step, 3 * size_step)
        differences.append(difference(rectangle, sizes[:1]))
    # max() may lose a NaN.
    found = next((d for d in differences if math.isnan(d)), max(differences))
    if not found <= allowed:
        raise AssertionError(
            f"{export_format.runtime} and the checkpoint's model differ by {found:.3g} of a "
            f"channel's largest value, allowed is {allowed:.3g}: nothing was written"
        )
    write_bytes(Path(path), content)
    return found


def allowed_difference(tolerance: float | None, half: bool) -> float:
    """Return the largest difference allowed: what was asked for, else 0.001, in 16 bits 0.1.

    Raises:
        ValueError: it is negative or NaN.

    >>> allowed_difference(None, half=False), allowed_difference(0.5, half=True)
    (0.001, 0.5)
    """
    allowed = tolerance if tolerance is not None else (0.1 if half else 1e-3)
    if not allowed >= 0:
        raise ValueError(f"tolerance={tolerance}: pass a fraction of at least 0")
    return allowed
