"""The arguments of `python -m lightning_prune export`; apart, so that --help is quick."""

import argparse
from pathlib import Path

from lightning_prune.cli.module_arguments import add_module_arguments
from lightning_prune.export.bundle.kinds import KINDS
from lightning_prune.export.formats import FORMATS


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune export`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune export",
        description="Write a checkpoint, cut or dense, as "
        f"{' or '.join(known.name for known in FORMATS.values())}, compared with the checkpoint on "
        "seeded noise before it is written. It takes any number of samples; a detector's takes "
        "images of any height and width in multiples of 32 too, other sizes are fixed.",
    )
    add = parser.add_argument
    add(
        "checkpoint", type=Path,
        help="a Lightning checkpoint, weights of a YOLOv8 detector, or the folder of a run",
    )  # fmt: skip
    add(
        "--format", default="onnx", metavar="FORMAT",
        help=f"{' or '.join(FORMATS)}: one file; or some of {', '.join(KINDS)}, with commas "
        "between them: a folder with each (onnx alone is one file, unless images are given); "
        "default: onnx",
    )  # fmt: skip
    add(
        "--output", type=Path,
        help="file to write, or of several formats the folder; default: beside the checkpoint",
    )  # fmt: skip
    add(
        "--calibrate", type=Path, metavar="RUN|FOLDER",
        help="a run whose training images give the ranges for 8 bits and whose validation images "
        "judge, or a folder of images of which a fifth judges; default: the checkpoint's run",
    )  # fmt: skip
    add(
        "--data", type=Path, metavar="FILE",
        help="instead: data.yaml of a labelled set; mAP on its validation images judges",
    )  # fmt: skip
    add("--limit", type=int, default=128, help="images to calibrate on at most; default: 128")
    add(
        "--accept-loss", type=float, metavar="LOSS",
        help="what a file in 8 bits may lose and still be written; default: .02 of mAP50-95, .01 "
        "of a classifier's accuracy, .25 of the agreement with the checkpoint where nothing is "
        "labelled, a relative error of .1 of other outputs",
    )  # fmt: skip
    add(
        "--image-size", type=int, nargs="+", metavar="PIXELS",
        help="side of the images, or height and width; default: what the model was trained on",
    )  # fmt: skip
    add_module_arguments(parser)
    add(
        "--batch", type=int,
        help="a fixed batch size, and fixed height and width, which OpenCV 4 and compilers for "
        "embedded devices want; default: any",
    )  # fmt: skip
    add("--half", action="store_true", help="weights and images in 16 bits")
    add("--opset", type=int, help="ONNX operator set, at least 18; default: the exporter's")
    add(
        "--tolerance", type=float,
        help="largest difference, as a fraction of a channel's largest value; default: 0.001, "
        "0.1 with --half; in a bundle also that of a detector's scores, boxes 100 times that in "
        "pixels",
    )  # fmt: skip
    return parser
