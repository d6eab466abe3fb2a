"""The arguments of `python -m lightning_prune compress`; apart, so that --help is quick."""

import argparse
from pathlib import Path


def compress_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune compress`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune compress",
        description="Make a trained detector smaller with nothing but pictures: no labels, no "
        "training. Channels go whose loss the layers behind them can repair, those are refitted "
        "to what the dense network gives, and a few hundred steps without labels follow. A fifth "
        "of the pictures is held back and judges: agreement is mAP50-95 of the small network with "
        "the detections of the dense one taken for objects. Any other module: "
        "lightning_prune.compress(module, batches) in Python.",
    )
    add = parser.add_argument
    add(
        "model", type=Path,
        help="weights of a YOLOv8 detector (.pt, .safetensors), a checkpoint, or a run's folder",
    )  # fmt: skip
    add(
        "--images", nargs="+", required=True, metavar="PATH",
        help="pictures like those that the detector will see: folders, files, quoted patterns",
    )  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--macs", default="0.5", metavar="FRACTION",
        help="fraction of the MACs that remains, in (0, 1), or several: 0.7,0.5,0.33; default: 0.5",
    )  # fmt: skip
    size.add_argument(
        "--agreement", type=float, metavar="LEAST",
        help="instead of --macs: as few MACs as still agree so far with the dense network, in (0, "
        "1), on what is held back, before label-free steps",
    )  # fmt: skip
    add("--steps", type=int, default=300, help="label-free steps; default: 300; 0: none")
    add(
        "--data", type=Path, metavar="FILE",
        help="data.yaml of a labelled set: mAP on its validation images is said too",
    )  # fmt: skip
    add(
        "--output", type=Path, required=True, metavar="FOLDER",
        help="a new or empty folder for checkpoints, weights and compress.json",
    )  # fmt: skip
    add(
        "--format", metavar="FORMATS",
        help="write a bundle of files of every size too, as `export` does: onnx-int8, or several "
        "with commas between them; calibrated on the pictures, judged by those held back",
    )  # fmt: skip
    add(
        "--accept-loss", type=float, metavar="LOSS",
        help="what a file in 8 bits may lose of the small network's agreement (default: .1), or "
        "with --data of its mAP50-95 (default: .02)",
    )  # fmt: skip
    add("--limit", type=int, default=256, help="pictures that are used at most; default: 256")
    add(
        "--image-size", type=int, metavar="PIXELS",
        help="side of the square that the network sees; default: what it was trained on",
    )  # fmt: skip
    add("--batch", type=int, default=8, help="pictures that the network sees at once; default: 8")
    add(
        "--layers", nargs="+", metavar="PATTERN",
        help="layers whose channels may go, by name or quoted pattern; default: all",
    )  # fmt: skip
    add("--round-to", type=int, default=8, help="widths are multiples of it; default: 8")
    add(
        "--no-mirror", action="store_true",
        help="do not fit mirrored pictures: where left and right matter (text, signs)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="of what is drawn; default: 0")
    add("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    add(
        "--class", dest="module_class", metavar="PACKAGE.MODULE.CLASS",
        help="a subclass of DetectorModule; default: that of the run's config.yaml",
    )  # fmt: skip
    return parser
