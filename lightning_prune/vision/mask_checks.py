"""Look at the images and masks of all splits, say what is wrong, and give what can be used."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lightning_prune.data.checks import MANY, Findings, OnError, Problem, settle
from lightning_prune.data.image_facts import ImageFacts, look_at_images, note_images
from lightning_prune.data.images import ImageError
from lightning_prune.errors import DataError
from lightning_prune.vision.mask_dataset import MaskRecord
from lightning_prune.vision.mask_file import IGNORED, MaskError, MaskReading
from lightning_prune.vision.mask_layout import MaskPair

ADVICE = {
    Problem.UNKNOWN_CLASS: (
        "correct the mask (ids begin at 0, the background's included), name all classes, or read "
        "masks of 0 and another value with binary=true"
    ),
    Problem.MASK_COLORS: (
        "pass colors={NAME: [red, green, blue], ...} with every colour (data.colors={...} on the "
        "command line; `ignore` for pixels that do not count), or save one channel"
    ),
    Problem.SIZE_DIFFERS: "a mask has the height and width of its image",
}


@dataclass(frozen=True)
class MaskFacts:
    """What a mask is like: its size in pixels, and the classes in it, IGNORED among them."""

    height: int
    width: int
    classes: frozenset[int]


def look_at_masks(
    paths: Sequence[Path], reading: MaskReading, title: str = "checking masks"
) -> list[MaskFacts | ImageError | MaskError]:
    """Read every mask in a few threads.

    Returns:
        for each file what it is like, or what is wrong with it.
    """

    def look(path: Path) -> MaskFacts | ImageError | MaskError:
        try:
            found = reading.classes(path)
        except (ImageError, MaskError) as error:
            return error
        height, width = found.shape
        return MaskFacts(height, width, frozenset(np.unique(found).tolist()))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results: Iterable[MaskFacts | ImageError | MaskError] = pool.map(look, paths)
        if len(paths) >= MANY:
            results = tqdm(results, title, total=len(paths), leave=False)
        return list(results)


def usable_pairs(
    pairs: Mapping[str, Sequence[MaskPair]],
    reading: MaskReading,
    findings: Findings,
    title: str,
    on_error: OnError,
    decode: bool,
) -> dict[str, list[MaskRecord]]:
    """Return the images of each split that can be used, with their masks.

    Args:
        pairs: For each split its images and masks.
        reading: How masks are read.
        findings: What was found so far.
        title: Which data set.
        on_error: "raise" stops at problems that would spoil the training, "skip" continues.
        decode: Read images to the last pixel; False reads headers only. Masks are always read.

    Raises:
        DataError: nothing is left, nothing can be learnt, or there are problems and on_error is
            "raise".
    """
    records: dict[str, list[MaskRecord]] = {}
    classes: dict[str, set[int]] = {}
    for split, given in pairs.items():
        images = [pair.image for pair in given]
        facts = look_at_images(images, decode, f"checking {split} images")
        bad = note_images(images, facts, findings)
        masks = look_at_masks([pair.mask for pair in given], reading, f"checking {split} masks")
        note_images([p.mask for p in given], [_as_image(mask) for mask in masks], findings)
        records[split], classes[split] = [], set()
        for pair, image, mask in zip(given, facts, masks, strict=True):
            if isinstance(mask, MaskError):
                kind = Problem.MASK_COLORS if mask.colors else Problem.UNKNOWN_CLASS
                findings.add(kind, str(mask))
            elif isinstance(mask, MaskFacts) and isinstance(image, ImageFacts):
                record = _compare_sizes(pair, image, mask, findings)
                if record is not None and pair.image not in bad:
                    records[split].append(record)
                    classes[split] |= mask.classes
    total = sum(map(len, pairs.values())) + findings.count(Problem.NO_MASK)
    settle(findings, on_error, title, total - sum(map(len, records.values())))
    for split, found in records.items():
        if not found:
            raise DataError(f"{title}: no usable image is left in `{split}`")
    if "train" in classes:
        _refuse_one_class(title, classes["train"], reading)
    return records


def _as_image(mask: MaskFacts | ImageError | MaskError) -> ImageFacts | ImageError:
    return mask if isinstance(mask, ImageError) else ImageFacts(1, 1)


def _compare_sizes(
    pair: MaskPair, image: ImageFacts, mask: MaskFacts, findings: Findings
) -> MaskRecord | None:
    """Find by the size whether a mask belongs to the upright image or to the stored pixels."""
    size, other = (image.height, image.width), (mask.height, mask.width)
    if size == other:
        return MaskRecord(pair.image, pair.mask)
    if image.lies and size[::-1] == other:
        findings.add(Problem.AS_STORED, str(pair.image))
        return MaskRecord(pair.image, pair.mask, upright=False)
    findings.add(Problem.SIZE_DIFFERS, f"{pair.image}: {size}, {pair.mask}: {other} (h, w)")
    return None


def _refuse_one_class(title: str, classes: set[int], reading: MaskReading) -> None:
    found = classes - {IGNORED}
    if len(found) > 1:
        return
    what = f"only the class {min(found)}" if found else "no class"
    only_zero = found <= {0} and IGNORED in classes and not reading.colors
    ways = (
        f"their other value, {reading.ignore_index}, means pixels that do not count; pass "
        "binary=true (data.binary=true on the command line) if it means the object"
        if only_zero
        else "there is nothing to learn"
    )
    raise DataError(f"{title}: the training masks hold {what}: {ways}")
