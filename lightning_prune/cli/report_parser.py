"""The arguments of `python -m lightning_prune report`; apart, so that --help is quick."""

import argparse
from pathlib import Path


def report_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune report`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune report",
        description="Print the tables of a run and draw its report.html again, from what is in its "
        "folder; nothing is computed again.",
    )
    parser.add_argument("folder", type=Path, help="folder of a run, such as outputs/DATE/TIME")
    parser.add_argument("--quiet", action="store_true", help="only draw the page")
    return parser
