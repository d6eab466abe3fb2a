"""The arguments of `python -m lightning_prune analyze`; apart, so that --help is quick."""

import argparse
from pathlib import Path

from lightning_prune.cli.module_arguments import add_module_arguments

WANTED, THRESHOLD = 0.3, 0.1


def analyze_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune analyze`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune analyze",
        description="Draw the norms of all channels over the checkpoints of a regularization run, "
        "and say from which epoch enough of them are low. Writes analysis/ in the run's folder.",
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder of a run, or of a sweep, whose runs are compared")
    add(
        "--threshold", type=float,
        help="low: under this fraction of the largest norm in the group; default: that of the run, "
        f"else {THRESHOLD}",
    )  # fmt: skip
    add(
        "--wanted", type=float,
        help="fraction of the channels that must be low; default: what the run's mac_target takes, "
        f"1 - sqrt(mac_target), else {WANTED}",
    )  # fmt: skip
    add(
        "--layers", nargs="+", metavar="PATTERN",
        help="names or patterns of layers; default: those that the run regularized",
    )  # fmt: skip
    add_module_arguments(parser)
    add("--output", type=Path, help="folder to write to; default: analysis/ in the run's folder")
    add("--no-figures", action="store_true", help="only the table and analysis.json")
    return parser
