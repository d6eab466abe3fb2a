"""Prune the zoo: library models that nobody here wrote, each in processes of its own.

    python benchmarks/zoo.py                          # all 165: hours
    python benchmarks/zoo.py tv timm:resnet18         # libraries and single models
    python benchmarks/zoo.py --resume --table docs/zoo.md

Each model is built once, its weights scrambled, and then pruned to half the channels of every
group in a process for each column: with labels alone, with the trial cut, with attribute changes
and by torch-pruning. A process has 60 s of processor time.
What a column says: ``zoo_judge.py``. Results are written after each model; ``--resume`` leaves out
what the same sources of the package have judged already, and torch-pruning's columns where the
versions are the same. Libraries that are not installed are
"missing".
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from zoo_judge import finders, judge, prepared
from zoo_models import make, selected
from zoo_peer import judge_torch_pruning
from zoo_process import PATIENCE, Limited
from zoo_table import cell, final, page

import lightning_prune

HERE = Path(__file__).resolve().parent
PACKAGE = Path(lightning_prune.__file__).parent
LIBRARIES = (
    "torch",
    "torch-pruning",
    "torchvision",
    "timm",
    "ultralytics",
    "segmentation-models-pytorch",
    "transformers",
)
# Asked of libraries, which only the processes of models import.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "1",
    "YOLO_VERBOSE": "false",
}
Row = dict[str, Any]


def digest() -> str:
    """Return a digest of the package's sources: who judged a model."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def commit() -> str:
    """Return the commit of the package's sources, with a plus where they have been changed."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(PACKAGE), *words, "--", "."]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    name = git("log", "-1", "--format=%h")
    return (name or lightning_prune.__version__) + ("+" if git("status", "--porcelain") else "")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def columns() -> dict[str, Callable[[torch.nn.Module, Any], Row]]:
    """Return what judges a model, by column."""
    ours = {name: partial(judge, find=find) for name, find in finders().items()}
    return {**ours, "torch_pruning": judge_torch_pruning}


def examine(name: str, seconds: int, megabytes: int, known: Row) -> Row:
    """Build a model and judge it in every column; a column's process starts with it built.

    Args:
        name: Its full name.
        seconds: Processor time of a column.
        megabytes: Memory of a column.
        known: Columns that need not be judged again.
    """
    begin = time.process_time()
    os.environ.update(ENVIRONMENT)
    try:
        made = make(name)
    except Exception as error:  # the library, or this model of it, is not installed
        return {"missing": f"{type(error).__name__}: {error}"[:300], "columns": {}}
    model, example = prepared(made)
    row: Row = {"build_seconds": time.process_time() - begin, "columns": {}}
    for column, judged in columns().items():
        if column in known:
            row["columns"][column] = known[column]
            continue
        run = Limited(partial(judged, model, example), seconds, megabytes)
        row["columns"][column] = answered(run.wait())
    return row


def answered(outcome: Row) -> Row:
    """Return a column's row from how its process ended."""
    if "value" in outcome:
        return dict(outcome["value"])
    if "hang" in outcome:
        return {"kind": "hang", "remark": outcome["hang"]}
    return {"kind": "crashed", "remark": f"{outcome['kind']}: {outcome['error']}"[:300]}


def examined(
    names: list[str], known: dict[str, Row], jobs: int, seconds: int, megabytes: int
) -> Iterator[Row]:
    """Examine models, some at a time; yield their rows as they end."""
    waiting, running = list(names), dict[str, Limited]()
    patience = PATIENCE * seconds * (len(columns()) + 1)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                work = partial(examine, name, seconds, megabytes, known.get(name, {}))
                running[name] = Limited(work, 2 * seconds, 2 * megabytes, patience)
            time.sleep(0.05)
            for name, run in list(running.items()):
                if (outcome := run.poll()) is not None:
                    del running[name]
                    # Not even its plain forward pass came to an end where there is no value.
                    yield {"name": name} | outcome.get(
                        "value", {"columns": {"trial": answered(outcome)}}
                    )
    finally:
        for run in running.values():
            run.stop()


def progress(number: int, count: int, row: Row) -> str:
    """Return the line that is printed of a model."""
    cells = "  ".join(f"{name}: {cell(found):12s}" for name, found in row["columns"].items())
    _, last = final(row)
    spent = "" if last.get("seconds") is None else f"{last['seconds']:5.1f} s "
    remark = last.get("remark", "")[:100]
    return f"{number:3d}/{count} {row['name']:38s} {cells} {spent}{remark}".rstrip()


def to_do(names: list[str], rows: dict[str, Row], sources: str) -> list[str]:
    """Return the names that these sources have not judged yet; what was missing is tried again.

    >>> rows = {"a": {"sources": "1", "columns": {"trial": {}}}, "b": {"sources": "1"}}
    >>> to_do(["a", "b", "c"], rows, "1"), to_do(["a"], rows, "2")
    (['b', 'c'], ['a'])
    """
    known = (name for name, row in rows.items() if row["sources"] == sources)
    done = {name for name in known if rows[name].get("columns")}
    return [name for name in names if name not in done]


def peers_of(rows: dict[str, Row]) -> dict[str, Row]:
    """Return torch-pruning's columns, which other sources of the package do not change.

    >>> peers_of({"a": {"columns": {"trial": 1, "torch_pruning": 2}}, "b": {"columns": {}}})
    {'a': {'torch_pruning': 2}}
    """
    return {
        name: {"torch_pruning": row["columns"]["torch_pruning"]}
        for name, row in rows.items()
        if "torch_pruning" in row["columns"]
    }


def write(path: Path, result: Row) -> None:
    """Replace a result file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="libraries, or library:model; none: all")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--seconds", type=int, default=60, help="processor time of a column")
    parser.add_argument("--megabytes", type=int, default=8000, help="memory of a column")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "zoo.json")
    parser.add_argument("--table", type=Path, help="write the results as Markdown too")
    parser.add_argument("--resume", action="store_true", help="keep what is judged already")
    parser.add_argument("--quick", action="store_true", help="one toy, 5 s")
    args = parser.parse_args()
    if args.quick:
        args.names, args.seconds = ["toy:plain"], 5
    try:
        args.names = selected(args.names)
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    """Run, print and write the zoo."""
    args = arguments()
    torch.set_num_threads(1)
    sources, revision = digest(), commit()
    limits = {"seconds": args.seconds, "megabytes": args.megabytes}
    rows: dict[str, Row] = {}
    known: dict[str, Row] = {}
    if args.resume and args.output.exists():
        before = json.loads(args.output.read_text())
        rows = before["rows"]
        if (before["versions"], before["limits"]) == (versions(), limits):
            known = peers_of(rows)
    names = to_do(args.names, rows, sources)
    result = {
        "rows": rows,
        "limits": limits,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions(),
    }
    print(f"{len(names)} models, {len(args.names) - len(names)} are judged already", flush=True)
    runs = examined(names, known, args.jobs, args.seconds, args.megabytes)
    for number, row in enumerate(runs, 1):
        rows[row["name"]] = row | {"sources": sources, "commit": revision}
        print(progress(number, len(names), row), flush=True)
        write(args.output, result)
    write(args.output, result)
    kinds = Counter(final(rows[name])[1]["kind"] for name in args.names)
    print(", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
    print(f"written to {args.output}")
    if args.table is not None:
        args.table.write_text(page(result))
        print(f"written to {args.table}")


if __name__ == "__main__":
    main()
