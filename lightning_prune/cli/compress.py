"""Make a detector smaller with nothing but pictures: `python -m lightning_prune compress`."""

import sys
from collections.abc import Sequence

from lightning_prune.cli.compress_parser import compress_parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 where it is wrong, with 1 where the cut fails.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = compress_parser().parse_args(argv)
    # Behind the parser: help needs no PyTorch.
    from lightning_prune.cli.compress_run import CompressRun
    from lightning_prune.cli.terminal import open_terminal

    try:
        run = CompressRun(args)
        with open_terminal():
            run.go()
    except (ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:  # no memory left; a cut that the comparison refuses
        print(error, file=sys.stderr)
        sys.exit(1)
