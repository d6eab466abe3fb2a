"""Detect objects on images and videos: `python -m lightning_prune predict`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where it is wrong.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = _parser().parse_args(argv)
    # Behind the parser: help needs no PyTorch.
    from lightning_prune.cli.prediction_run import PredictionRun
    from lightning_prune.cli.terminal import open_terminal

    try:
        run = PredictionRun(args)
        with open_terminal():
            run.go()
    except (ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if not run.worked:
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune predict",
        description="Detect objects with a checkpoint, dense or cut, or an ONNX file. Images are "
        "letterboxed as in validation, boxes are in pixels of the original image.",
    )
    add = parser.add_argument
    add(
        "model", type=Path,
        help="a checkpoint, a run's folder, weights of a YOLOv8 detector, or an .onnx file",
    )  # fmt: skip
    add(
        "--source", nargs="+", required=True, metavar="PATH",
        help="images, videos, folders (with the folders in them), or quoted patterns such as "
        "'photos/*.jpg'",
    )  # fmt: skip
    add(
        "--save", action="store_true",
        help="write images and videos with boxes, YOLO label files with confidences, and "
        "predictions.json",
    )  # fmt: skip
    add(
        "--output", type=Path, metavar="FOLDER",
        help="an empty or new folder, implies --save; default: outputs/predict/1, 2, ...",
    )  # fmt: skip
    add("--no-images", action="store_true", help="with --save: only label files and JSON")
    add("--conf", type=float, help="detections must be above it, in [0, 1); default: 0.25")
    add(
        "--iou", type=float,
        help="largest overlap of two boxes of a class, in [0, 1]; default: 0.7",
    )  # fmt: skip
    add("--max-detections", type=int, help="largest number per image; default: 300")
    add("--classes", nargs="+", metavar="CLASS", help="names or numbers; default: all")
    add(
        "--multi-label", action="store_true",
        help="a box may have several classes, as in validation",
    )  # fmt: skip
    add(
        "--image-size", type=int, metavar="PIXELS",
        help="side of the square that the network sees; default: what it was trained on",
    )  # fmt: skip
    add("--batch", type=int, default=8, help="images that the network sees at once; default: 8")
    add("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    add(
        "--class", dest="module_class", metavar="PACKAGE.MODULE.CLASS",
        help="a subclass of DetectorModule; default: that of the run's config.yaml",
    )  # fmt: skip
    return parser
