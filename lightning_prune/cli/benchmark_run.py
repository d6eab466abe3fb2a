"""What `python -m lightning_prune benchmark` does."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from lightning_prune.cli.benchmark_parser import RUNTIMES
from lightning_prune.cli.benchmark_variants import (
    Variant,
    Wanted,
    example_of_file,
    inputs_for,
    variants_of,
)
from lightning_prune.cli.terminal import shows_bars
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.write_bundle import versions
from lightning_prune.files.write_json import write_json
from lightning_prune.report.interleaved import Timing, interleaved

DENSE = "dense"
_PIPED = 140


class BenchmarkRun:
    """Everything is opened when it is made; `go` then times it.

    Args:
        args: The command line.

    Attributes:
        rows: What was measured, a row for each variant and batch.

    Raises:
        ValueError: a model or an option is wrong; the message says what to do.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.batches = _numbers(args.batch)
        for name in ("threads", "rounds"):
            if getattr(args, name) < 1:
                raise ConfigError(f"--{name} {getattr(args, name)}: pass at least 1")
        runtimes = [part.strip() for part in args.runtimes.split(",")]
        unknown = [one for one in runtimes if one not in RUNTIMES]
        if unknown:
            raise ConfigError(
                f"--runtimes {args.runtimes}: {unknown[0]!r} is none of {', '.join(RUNTIMES)}"
            )
        torch.set_num_threads(args.threads)
        left_out: list[str] = []
        wanted = Wanted(
            runtimes, args.threads, args.module_class, args.input_shape, args.image_size, left_out
        )
        self.variants: list[Variant] = []
        examples = []
        labelled = [(args.dense, DENSE)] if args.dense is not None else []
        for path, label in [*labelled, *((path, "") for path in args.models)]:
            found, example = variants_of(Path(path).expanduser(), wanted, label)
            self.variants += found
            examples.append(example)
        if not self.variants:
            raise ConfigError("\n".join(left_out) or "nothing to time")
        known = [one for one in examples if one is not None]
        self.example = known[0] if known else self._example_of_bundle(wanted)
        self.left_out = left_out
        self.rows: list[dict[str, Any]] = []

    def go(self) -> None:
        """Time everything, print a table for each batch, and write the JSON."""
        for line in self.left_out:
            print(line, file=sys.stderr)
        for batch in self.batches:
            arrays = inputs_for(self.example, batch)
            names = [f"{place}" for place in range(len(self.variants))]
            runs = {
                name: partial(one.run, arrays)
                for name, one in zip(names, self.variants, strict=True)
            }
            rounds = max(5, self.args.rounds // batch)
            taken = _timed(runs, rounds, f"batch {batch}")
            self._table(batch, rounds, [taken[name] for name in names])
        if self.args.json is not None:
            write_json(self.args.json, self.content())

    def content(self) -> dict[str, Any]:
        """Return what was measured, and on what."""
        return {
            "threads": self.args.threads,
            "processor": platform.processor() or platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "versions": versions(),
            "left_out": self.left_out,
            "rows": self.rows,
        }

    def _table(self, batch: int, rounds: int, timings: Sequence[Timing]) -> None:
        base = self._baseline()
        reference = timings[base].processor_low
        against = f"{self.variants[base].name}, {self.variants[base].runtime}"
        plural = "" if self.args.threads == 1 else "s"
        table = Table(
            title=f"batch {batch}, {self.args.threads} thread{plural}, {rounds} rounds: 20th "
            f"percentile (median); times faster than {against}",
            title_justify="left",
        )
        table.add_column("network", no_wrap=True)
        table.add_column("runtime", no_wrap=True)
        for heading in ("times faster", "processor ms", "clock ms", "MB", "metric"):
            table.add_column(heading, justify="right")
        for one, timing in zip(self.variants, timings, strict=True):
            faster = reference / timing.processor_low
            metric = "" if one.metric is None else f"{one.metric[0]} {one.metric[1]:.4f}"
            size = "" if one.bytes is None else f"{one.bytes / 1e6:.2f}"
            table.add_row(
                one.name, one.runtime + (" INT8" if one.int8 else ""), f"{faster:.2f}",
                f"{timing.processor_low:.2f} ({timing.processor:.2f})",
                f"{timing.wall_low:.2f} ({timing.wall:.2f})", size, metric,
            )  # fmt: skip
            self.rows.append(
                {"network": one.name, "runtime": one.runtime, "int8": one.int8, "batch": batch,
                 "rounds": rounds, "ms": asdict(timing), "times_faster": faster, "than": against,
                 "bytes": one.bytes, "metric": None if one.metric is None else
                 {one.metric[0]: one.metric[1]}}
            )  # fmt: skip
        console = Console()
        # What is piped is not cut to the width of a terminal.
        (console if console.is_terminal else Console(width=_PIPED)).print(table)

    def _baseline(self) -> int:
        """Return the row that all are compared with: dense, in ONNX Runtime where it is there."""
        dense = [i for i, one in enumerate(self.variants) if one.name.split(" ")[0] == DENSE]
        onnx = [
            i for i in dense
            if self.variants[i].runtime == "ONNX Runtime" and not self.variants[i].int8
        ]  # fmt: skip
        return next(iter([*onnx, *dense]), 0)

    def _example_of_bundle(self, wanted: Wanted) -> Any:
        """Return an example input as a file of the bundles takes it."""
        for one in self.variants:
            if hasattr(one.run, "inputs"):
                example = example_of_file(one.run, wanted.side)
                if example is not None:
                    return example
        return None


def _timed(runs: Mapping[str, Callable[[], object]], rounds: int, title: str) -> dict[str, Timing]:
    """Time them, and show on a terminal how far it has come."""
    with tqdm(total=rounds, desc=title, leave=False, disable=not shows_bars()) as bar:

        def notify(done: int) -> None:
            bar.update(1)

        return interleaved(runs, rounds, notify)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batch {text}: pass a number of images, or several: 1,8")
    return [int(part) for part in parts]
