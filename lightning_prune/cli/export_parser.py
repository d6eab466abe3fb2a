"""The arguments of `python -m lightning_prune export`; apart, so that --help is quick."""

import argparse
from pathlib import Path

from lightning_prune.cli.module_arguments import add_module_arguments
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
    add("--format", choices=list(FORMATS), default="onnx", help="default: onnx")
    add("--output", type=Path, help="file to write; default: beside the checkpoint")
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
        "0.1 with --half",
    )  # fmt: skip
    return parser
