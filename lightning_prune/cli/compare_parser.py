"""The arguments of `python -m lightning_prune compare`; apart, so that --help is quick."""

import argparse
from pathlib import Path


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune compare`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune compare",
        description="Put runs side by side: a table, and compare.html with the metric against MACs "
        "and milliseconds.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER",
        help="folders of runs, or folders that hold runs, such as that of a sweep",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path,
        help="the page; default: compare.html in the folder that holds all of the runs",
    )  # fmt: skip
    return parser
