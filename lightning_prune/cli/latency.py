"""Measure how long a network takes at any widths: `python -m lightning_prune latency`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.export import example_of, load_module
from lightning_prune.cli.latency_parser import latency_parser
from lightning_prune.errors import ConfigError, DataError
from lightning_prune.files import write_bytes
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.bundle import read_bundle, table_text, write_bundle
from lightning_prune.latency.job import BLOCK, latency_job
from lightning_prune.latency.measured import MeasuredFraction, measured_table
from lightning_prune.latency.table import LatencyTable
from lightning_prune.latency.whole_models import random_widths
from lightning_prune.surgery.build_groups import build_groups

_FEWEST = 3


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where it is wrong.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = latency_parser().parse_args(argv)
    try:
        _check(args)
        path = checkpoint_argument(args.checkpoint)
        module = load_module(path, args.module_class)
        example = example_of(module, args.input_shape, args.image_size)
        groups = build_groups(module, example)
        names = list(groups)
        if not names:
            raise ValueError("no group of channels of this network can be pruned: its time is one")
        macs = MacModel.of(module, groups, example)
        if args.bundle is not None:
            job = latency_job(
                module, groups, names, example, plans=args.plans, seed=args.seed, progress=_bar
            )
            write_bundle(job, args.bundle)
            print(f"{args.bundle}: run `python measure.py` there on the machine that it is for")
            return
        if args.read is not None:
            table = read_bundle(args.read, macs)
        else:
            table = measured_table(
                module, groups, names, macs, example,
                threads=args.threads, plans=args.plans, seed=args.seed, progress=_bar,
            )  # fmt: skip
        write_bytes(args.output, table_text(table).encode())
        print(f"{args.output} ({table.digest}): {table.in_words()}")
        if args.check:
            measure = MeasuredFraction(module, groups, example, args.threads)
            print(_checked(table, macs, groups, names, measure, args.check, args.seed + 1))
    except (ConfigError, DataError, FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _check(args: argparse.Namespace) -> None:
    for name, least in (("threads", 1), ("plans", _FEWEST), ("check", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} {getattr(args, name)}: pass at least {least}")
    if args.bundle is not None and args.read is not None:
        raise ValueError(
            "--bundle writes what is to be measured, --read reads it: pass one of them"
        )
    if args.read is not None and args.check:
        raise ValueError("--check times networks here, --read brings times of another machine")
    if args.bundle is None and not args.output.parent.is_dir():
        raise ValueError(f"--output {args.output}: there is no folder {args.output.parent}")


def _bar(items: Sequence[Any], title: str) -> Iterable[Any]:
    shown: Iterable[Any] = tqdm(items, title, leave=False, disable=not sys.stderr.isatty())
    return shown


def _checked(
    table: LatencyTable,
    macs: MacModel,
    groups: ChannelGroups,
    names: Sequence[str],
    measure: MeasuredFraction,
    count: int,
    seed: int,
) -> str:
    """Return how far a table is off for fresh networks, as fractions of the dense time."""
    random, model = torch.Generator().manual_seed(seed), table.model(macs)
    off = []
    for _ in _bar(range(count), "Timing networks"):
        widths = random_widths(groups, names, BLOCK, random)
        off.append(abs(model.remaining(widths) / model.total / measure(widths) - 1))
    return (
        f"{count} fresh networks: off by {100 * np.median(off):.1f} % (median), "
        f"{100 * np.percentile(off, 95):.1f} % (95th percentile), {100 * max(off):.1f} % (largest)"
    )
