"""The arguments of `python -m lightning_prune why`; apart, so that --help is quick."""

import argparse
from pathlib import Path


def why_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune why`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune why",
        description="Say why a channel stayed or was cut: its numbers, its rivals, and how sure "
        "that is. From what the run stored in report_data/; nothing is trained.",
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder of a run, or one of its checkpoints")
    add("channel", help="a layer or group and the place of a channel: backbone.p1.conv.12")
    add("--draws", type=int, default=40, help="how often the choice is made again (%(default)s)")
    add("--seed", type=int, default=0, help="of the draws (%(default)s)")
    return parser
