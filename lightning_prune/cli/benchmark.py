"""Time networks in the runtimes that are installed: `python -m lightning_prune benchmark`."""

import sys
from collections.abc import Sequence

from lightning_prune.cli.benchmark_parser import benchmark_parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 where it is wrong.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = benchmark_parser().parse_args(argv)
    # Behind the parser: help needs no PyTorch.
    from lightning_prune.cli.benchmark_run import BenchmarkRun
    from lightning_prune.cli.terminal import open_terminal

    try:
        run = BenchmarkRun(args)
        with open_terminal():
            run.go()
    except (ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
