"""Arguments that several commands share: which module is loaded, and what it takes."""

import argparse


def add_module_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--class`` and ``--input-shape``."""
    parser.add_argument(
        "--class", dest="module_class", metavar="PACKAGE.MODULE.CLASS",
        help="the LightningModule; default: that of the run's config.yaml, else DetectionModule",
    )  # fmt: skip
    parser.add_argument(
        "--input-shape", type=int, nargs="+", metavar="SIZE",
        help="shape of one sample; default: the module's example_input_array",
    )  # fmt: skip
