"""The arguments of `python -m lightning_prune layers`; apart, so that --help is quick."""

import argparse
from pathlib import Path


def layers_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune layers`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune layers",
        description="List the layers that can be pruned, in the groups that shrink together: of "
        "the model that `train` builds from the same overrides, of a checkpoint, or of a network "
        "of your own.",
    )
    add = parser.add_argument
    add(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="before the options; as for train, with --class arguments of its constructor",
    )  # fmt: skip
    add("--config-dir", type=Path, help="a folder of config groups of your own, as for train")
    add(
        "--checkpoint", type=Path,
        help="a Lightning checkpoint, weights of a YOLOv8 detector, or the folder of a run",
    )  # fmt: skip
    add(
        "--class", dest="module_class", metavar="PACKAGE.MODULE.CLASS",
        help="a network's class, or a function that builds one; with --checkpoint the "
        "LightningModule to load it into",
    )  # fmt: skip
    add(
        "--input-shape", type=int, nargs="+", metavar="SIZE",
        help="shape of one sample, without the batch; default: the module's example_input_array",
    )  # fmt: skip
    add(
        "--layers", nargs="+", metavar="PATTERN",
        help="names or patterns, to see which groups they select; default: those of the recipe",
    )  # fmt: skip
    add(
        "--attention", choices=("heads", "width", "both"), default="heads",
        help="what of attention goes: whole heads, channels of every head, or both; default: heads",
    )  # fmt: skip
    add(
        "--check", action="store_true",
        help="also mask and cut a copy, and print what becomes of each layer; always with --class",
    )  # fmt: skip
    add(
        "--ratio", type=float, default=0.5,
        help="with --check: fraction of every group's channels that is removed; default: 0.5",
    )  # fmt: skip
    return parser
