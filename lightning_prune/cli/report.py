"""Draw a run's page again from what is stored: `python -m lightning_prune report`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.cli.report_parser import report_parser
from lightning_prune.errors import ConfigError
from lightning_prune.report.page.comparison import run_folders
from lightning_prune.report.page.run_page import write_page
from lightning_prune.report.page.stored_run import is_run
from lightning_prune.report.report_data import FILE, read_report
from lightning_prune.report.table import print_report


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where there is nothing to show.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = report_parser().parse_args(argv)
    try:
        folder = run_folder(args.folder)
        page = write_page(folder)
        if not args.quiet and (folder / FILE).is_file():
            print_report(read_report(folder / FILE))
    except (ConfigError, OSError, ValueError, KeyError, TypeError) as error:
        print(_sentence(error, args.folder), file=sys.stderr)
        sys.exit(2)
    print(f"the page is {page}, {page.stat().st_size / 1000:.0f} kB")


def run_folder(given: Path) -> Path:
    """Return the folder of the run that was meant: itself, or the one that holds `checkpoints/`."""
    given = given.expanduser()
    if given.is_file() or given.name == "checkpoints":
        inside = given.parent if given.is_file() else given
        return inside.parent if inside.name == "checkpoints" else inside
    if given.is_dir() and not is_run(given):
        runs = run_folders([given])  # says that it holds no run
        raise ConfigError(
            f"{given} holds {len(runs)} runs: give one of them, or see them side by side with "
            f"`python -m lightning_prune compare {given}`"
        )
    return given


def _sentence(error: Exception, folder: Path) -> str:
    """Return what is wrong; a report that was damaged has no words for it."""
    if isinstance(error, KeyError | TypeError | json.JSONDecodeError):
        kind = type(error).__name__
        return f"{folder / FILE} is damaged ({kind}: {error}): restore it, or run again"
    return str(error)
