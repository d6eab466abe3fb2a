"""Put runs side by side: `python -m lightning_prune compare`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.cli.compare_parser import compare_parser
from lightning_prune.errors import ConfigError
from lightning_prune.report.comparison_table import print_comparison
from lightning_prune.report.page.comparison import compare, run_folders
from lightning_prune.report.page.comparison_page import COMPARE, write_comparison


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where there is nothing to compare.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = compare_parser().parse_args(argv)
    try:
        folders = run_folders([folder.expanduser() for folder in args.folders])
        path = args.output or Path(os.path.commonpath(folders)) / COMPARE
        if path.is_dir():
            raise ConfigError(f"--output {path} is a folder: give a file, such as {path / COMPARE}")
        comparison = compare(folders, path.parent)
        print_comparison(comparison)
        write_comparison(path, comparison, "Comparison")
    except (ConfigError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"the page is {path}")
