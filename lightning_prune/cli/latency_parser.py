"""The arguments of `python -m lightning_prune latency`; apart, so that --help is quick."""

import argparse
from pathlib import Path

from lightning_prune.cli.module_arguments import add_module_arguments


def latency_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m lightning_prune latency`."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_prune latency",
        description="Time the kernels of a network at many widths with ONNX Runtime, and write the "
        "table by which maskers meet a latency_target (masker.latency_table=FILE). For another "
        "machine write a bundle, measure there, and read it: --bundle, then --read.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="of the dense network: a checkpoint, or the folder of a run")
    add("--output", type=Path, default=Path("latency.json"), help="the table (%(default)s)")
    add("--threads", type=int, default=1, help="threads of ONNX Runtime (%(default)s)")
    add(
        "--plans", type=int, default=5,
        help="whole networks of random widths that are timed beside the kernels, at least 3 "
        "(%(default)s)",
    )  # fmt: skip
    add(
        "--check", type=int, default=0, metavar="N",
        help="then time so many fresh networks, and say how far the table is off (%(default)s)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="of the random widths (%(default)s)")
    add(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="write what is to be timed elsewhere, no table",
    )
    add("--read", type=Path, metavar="FOLDER", help="a bundle that was measured (times.json)")
    add(
        "--image-size", type=int, nargs="+", metavar="PIXELS",
        help="height and width, or one number for both; default: those of the module's example",
    )  # fmt: skip
    add_module_arguments(parser)
    return parser
