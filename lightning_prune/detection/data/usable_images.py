"""Look at the images of all splits, say what is wrong, and give what can be used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_prune.data.checks import MANY, Findings, OnError, Problem, settle
from lightning_prune.data.image_facts import ImageFacts, look_at_images, note_images
from lightning_prune.data.images import ImageError
from lightning_prune.detection.data.dataset import ImageSource
from lightning_prune.detection.data.records import ImageFiles, ImageRecord
from lightning_prune.errors import DataError

Sizes = Mapping[Path, tuple[int, int]]


def usable_images(
    records: Mapping[str, Sequence[ImageRecord]],
    unusable: Mapping[str, set[Path]],
    findings: Findings,
    title: str,
    on_error: OnError,
    decode: bool,
    sizes: Mapping[str, Sizes] | None = None,
) -> dict[str, ImageSource]:
    """Return the images of each split that can be used.

    Where a large set is refused for its annotations, its images are not looked at first.

    Args:
        records: For each split, one record per image.
        unusable: For each split the images with an object that cannot be used.
        findings: What was found so far.
        title: Which data set.
        on_error: "raise" stops at problems that would spoil the training, "skip" continues.
        decode: Read images to the last pixel; False reads headers only.
        sizes: For each split the annotated (height, width) of each image, where there are any.

    Raises:
        DataError: nothing is left, or there are problems and on_error is "raise".
    """
    found = {split: list(given) for split, given in records.items()}
    left_out = {split: set(paths) for split, paths in unusable.items()}
    refused = findings.fatal and on_error == "raise"
    if not (refused and sum(map(len, found.values())) > MANY):
        for split, given in found.items():
            paths = [record.path for record in given]
            facts = look_at_images(paths, decode, f"checking {split} images")
            left_out[split] |= note_images(paths, facts, findings)
            if sizes is not None:
                found[split] = _compare_sizes(given, facts, sizes[split], findings, left_out[split])
    absent = findings.count(Problem.MISSING_IMAGE)
    settle(findings, on_error, title, absent + sum(map(len, left_out.values())))
    sources: dict[str, ImageSource] = {}
    for split, given in found.items():
        usable = [record for record in given if record.path not in left_out[split]]
        if not usable:
            raise DataError(f"{title}: no usable image is left in `{split}`")
        sources[split] = ImageFiles(usable)
    return sources


def _compare_sizes(
    records: Sequence[ImageRecord],
    facts: Sequence[ImageFacts | ImageError],
    sizes: Sizes,
    findings: Findings,
    left_out: set[Path],
) -> list[ImageRecord]:
    """Find by the annotated size whether boxes belong to the upright image or the stored pixels."""
    result = []
    for record, each in zip(records, facts, strict=True):
        if not isinstance(each, ImageError):
            size, annotated = (each.height, each.width), sizes[record.path]
            if size != annotated and each.lies and size[::-1] == annotated:
                findings.add(Problem.AS_STORED, str(record.path))
                record = replace(record, upright=False)
            elif size != annotated:
                findings.add(
                    Problem.SIZE_DIFFERS, f"{record.path}: {size}, annotated {annotated} (h, w)"
                )
                left_out.add(record.path)
        result.append(record)
    return result
