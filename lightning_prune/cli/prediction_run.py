"""What `python -m lightning_prune predict` does."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from lightning_prune.cli.export import load_module
from lightning_prune.cli.model_argument import model_argument
from lightning_prune.cli.terminal import shows_bars
from lightning_prune.data.images import ImageError, read_image
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.predict.detect_images import Times, detect_images, in_batches
from lightning_prune.detection.predict.detections import Detections
from lightning_prune.detection.predict.detector import Detector
from lightning_prune.detection.predict.file_detector import FileDetector
from lightning_prune.detection.predict.module_detector import detector_of, options_of
from lightning_prune.detection.predict.options import (
    PredictionOptions,
    check_image_size,
    class_numbers,
)
from lightning_prune.detection.predict.predict_images import input_size, make_detections
from lightning_prune.detection.predict.result_folder import ResultFolder, numbered_folder
from lightning_prune.detection.predict.sources import Source, find_sources
from lightning_prune.detection.predict.video import VideoError, check_video_installed, open_video
from lightning_prune.errors import ConfigError
from lightning_prune.export.runtimes.open_file import is_runtime_file

_SHOWN = 5
Item = TypeVar("Item")


class PredictionRun:
    """Everything is checked when it is made; `go` then goes through the files.

    Args:
        args: The command line.

    Attributes:
        worked: Whether at least one file could be read.

    Raises:
        ValueError: the model, a source or an option is wrong; the message says what to do.
    """

    def __init__(self, args: argparse.Namespace):
        if args.batch < 1:
            raise ConfigError(f"--batch {args.batch}: pass at least 1")
        self.sources, others = find_sources(args.source)
        if any(source.video for source in self.sources):
            check_video_installed()
        self.detector, self.path, defaults = _detector(args)
        self.options = replace(
            defaults,
            confidence=defaults.confidence if args.conf is None else args.conf,
            iou=defaults.iou if args.iou is None else args.iou,
            max_detections=(
                defaults.max_detections if args.max_detections is None else args.max_detections
            ),
            classes=class_numbers(args.classes, self.detector.names),
            multi_label=args.multi_label,
        )
        side = None if args.image_size is None else (check_image_size(args.image_size),) * 2
        self.size = input_size(self.detector, side)
        self.batch = self.detector.batch or args.batch
        self.results: ResultFolder | None = None
        if args.save or args.output is not None:
            folder = args.output or numbered_folder(Path("outputs/predict"))
            self.results = ResultFolder(folder, self._facts(), not args.no_images)
        self.others = others
        self.times = Times()
        self.detections = 0
        self.failed: list[str] = []

    @property
    def worked(self) -> bool:
        """Return whether at least one file could be read."""
        return self.times.images > 0

    def go(self) -> None:
        """Predict on every file, print a line for each, and write what was asked for."""
        images = [source for source in self.sources if not source.video]
        videos = [source for source in self.sources if source.video]
        try:
            with self.detector.running():
                if images:
                    self._images(images)
                for video in videos:
                    self._video(video)
        finally:
            if self.results is not None:
                self.results.write()
        print(self.summary())

    def summary(self) -> str:
        """Return how much was found, what failed, how long it took and where it is."""
        text = [f"{self.times.images} images, {self.detections} detections; {self.times}"]
        if self.failed:
            shown = self.failed[:_SHOWN]
            more = len(self.failed) - len(shown)
            text.append(f"{len(self.failed)} could not be read: {', '.join(shown)}")
            text[-1] += f" and {more} more" if more else ""
        if self.others:
            text.append(f"{self.others} files there are neither images nor videos: left out")
        where = None if self.results is None else self.results.folder
        text.append("nothing is written: --save does" if where is None else f"written to {where}")
        return "\n".join(text)

    def _images(self, sources: list[Source]) -> None:
        read: list[tuple[int, Source]] = []
        total, width = len(sources), len(str(len(sources)))

        def arrays() -> Iterator[np.ndarray]:
            for number, source in enumerate(_bar(sources, total, " images"), start=1):
                start = time.perf_counter()
                try:
                    array = read_image(source.path)
                except ImageError as error:
                    self._fail(source, error)
                    continue
                self.times.read += time.perf_counter() - start
                read.append((number, source))
                yield array

        for batch in in_batches(arrays(), self.batch):
            found = detect_images(self.detector, batch, self.options, self.size, self.times)
            for array, one in zip(batch, found, strict=True):
                number, source = read.pop(0)
                detections = make_detections(one, array, source.path, self.detector.names)
                # Drawn on what is in memory: the file is not read a second time.
                self._note(replace(detections, image=array), source)
                where = f"{source.path} {array.shape[1]}x{array.shape[0]}"
                print(f"{number:>{width}}/{total} {where}: {detections.summary()}", flush=True)

    def _video(self, source: Source) -> None:
        frames: list[dict[str, Any]] = []
        rate = 0.0
        with ExitStack() as stack:
            try:
                video = open_video(source.path)
                rate = video.rate
                target = None if self.results is None else self.results.video_path(source.name)
                writer = None if target is None else stack.enter_context(video.writer(target))
                arrays = _bar(video.frames(), video.count or None, " frames")
                for batch in in_batches(arrays, self.batch):
                    found = detect_images(self.detector, batch, self.options, self.size, self.times)
                    for array, one in zip(batch, found, strict=True):
                        seen = make_detections(one, array, None, self.detector.names)
                        self.detections += len(seen)
                        frames.append(_frame(seen, len(frames), rate))
                        if writer is not None:
                            writer.write(np.asarray(seen.draw()))
                if not frames:
                    raise VideoError(f"{source.path}: no frame can be read")
            except VideoError as error:
                self._fail(source, error)
        if frames:
            if self.results is not None:
                self.results.add_video(source.path, rate, frames)
            count = sum(len(frame["detections"]) for frame in frames)
            print(f"{source.path} {len(frames)} frames at {rate:g} a second: {count} detections")

    def _note(self, detections: Detections, source: Source) -> None:
        self.detections += len(detections)
        if self.results is not None:
            self.results.add_image(detections, source.name)

    def _fail(self, source: Source, error: ValueError) -> None:
        self.failed.append(str(source.path))
        if self.results is not None:
            self.results.add_failure(source.path, str(error))
        print(f"left out: {error}", file=sys.stderr, flush=True)

    def _facts(self) -> dict[str, Any]:
        options = self.options
        return {
            "model": str(self.path),
            "names": list(self.detector.names),
            "image_size": list(self.size),
            "confidence": options.confidence,
            "iou": options.iou,
            "max_detections": options.max_detections,
            "multi_label": options.multi_label,
            "classes": None if options.classes is None else sorted(options.classes),
        }


def _bar(items: Iterable[Item], total: int | None, unit: str) -> Iterable[Item]:
    """Show on a terminal how far it has come."""
    bar: Iterable[Item] = tqdm(items, None, total, False, unit=unit, disable=not shows_bars())
    return bar


def _frame(detections: Detections, index: int, rate: float) -> dict[str, Any]:
    """Describe a frame for the JSON file."""
    found = detections.to_dict()["detections"]
    return {"frame": index, "seconds": round(index / rate, 4), "detections": found}


def _detector(args: argparse.Namespace) -> tuple[Detector, Path, PredictionOptions]:
    """Load the model, whatever it is; its defaults come with it."""
    path = model_argument(args.model)
    if is_runtime_file(path):
        return FileDetector(path, args.device or "cpu"), path, PredictionOptions()
    module = load_module(path, args.module_class)
    if not isinstance(module, DetectorModule):
        raise ConfigError(
            f"{path} holds a {type(module).__name__}: predict draws the boxes of detectors; load "
            "it with lightning_prune.load_pruned and call it"
        )
    device = device_of(args.device)
    try:
        module.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device}: not usable here: {reason}") from error
    return detector_of(module), path, options_of(module)


def device_of(name: str | None) -> torch.device:
    """Return the device of that name, or the best one there is.

    Raises:
        ConfigError: there is no device of such a name.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: pass cpu, cuda, cuda:1 or mps") from error
