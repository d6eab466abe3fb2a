"""The table of a sweep: what differs, what was measured, and why something is missing."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_prune.runs.sweep.sweep_table import print_sweep, sweep_rows, write_sweep


def job(number: int, *overrides: str, status: str = "ok", **result: Any) -> dict[str, Any]:
    known = {"monitor": "val/map", "value": None, "metrics": {}}
    return {
        "job": number,
        "overrides": ["+pruning=channel", *overrides],
        "status": status,
        "reason": None if status == "ok" else "it said [no]",
        "result": known | result if result else None,
    }


JOBS = [
    job(10, "pruning.regularizer.reg=0.5", "seed=3", status="failed"),
    job(2, "pruning.regularizer.reg=0.05", "seed=3", value=0.5, metrics={"test/map": 0.4},
        norm_drop=0.25, low_channels=0.125, macs=0.498),
    job(3, "pruning.regularizer.reg=5.0", "seed=3", value="nan", metrics={"test/map": "inf"},
        norm_drop=-0.5, low_channels=0.0, macs=None),
]  # fmt: skip


def shown(rows: list[dict[str, Any]]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    print_sweep(rows, console)
    return console.export_text()


def test_rows_come_in_the_order_of_the_jobs_with_what_differs():
    rows = sweep_rows(JOBS)
    assert [row["job"] for row in rows] == [2, 3, 10]
    assert [row["overrides"] for row in rows] == [
        {"pruning.regularizer.reg": text} for text in ("0.05", "5.0", "0.5")
    ]
    assert rows[0]["metrics"] == {"val/map": 0.5, "test/map": 0.4}
    assert rows[2]["metrics"] == {}


def test_an_override_that_only_some_jobs_have_differs():
    rows = sweep_rows([job(0, "seed=1"), job(1)])
    assert [row["overrides"] for row in rows] == [{"seed": "1"}, {"seed": None}]


def test_the_printed_table():
    text = shown(sweep_rows(JOBS))
    (line,) = [line for line in text.splitlines() if "0.05" in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["2", "0.05", "0.5000", "0.4000", "25.0%", "12.5%", "49.8%", "ok"]
    assert "nan" in text
    assert "-50.0%" in text
    assert "job 10 failed: it said [no]" in text
    assert "norm drop: by how much" in text


def test_columns_that_nobody_fills_are_left_out():
    text = shown(sweep_rows([job(0, "seed=0", value=0.5), job(1, "seed=1", value=0.75)]))
    assert "norm drop" not in text
    assert "MACs left" not in text


@pytest.mark.parametrize(
    ("keys", "headings"),
    [
        (("pruning.regularizer.reg", "seed"), (" reg ", " seed ")),
        (("pruning.a.reg", "pruning.b.reg"), (" a.reg ", " b.reg ")),
        (("seed", "data.seed"), (" seed ", " data.seed ")),
    ],
)
def test_headings_are_short_and_different(keys: tuple[str, str], headings: tuple[str, str]):
    jobs = [job(n, *(f"{key}={n}" for key in keys), value=0.5) for n in (0, 1)]
    heading = shown(sweep_rows(jobs)).splitlines()[2]
    assert all(name in heading for name in headings)


def test_files_hold_every_value(tmp_path: Path):
    rows = sweep_rows(JOBS)
    write_sweep(tmp_path, rows)
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"] == rows
    with (tmp_path / "sweep.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["pruning.regularizer.reg"] for row in read] == ["0.05", "5.0", "0.5"]
    assert [row["test/map"] for row in read] == ["0.4", "inf", ""]
    assert [row["norm_drop"] for row in read] == ["0.25", "-0.5", ""]
    assert [row["macs"] for row in read] == ["0.498", "", ""]
    assert [row["reason"] for row in read] == ["", "", "it said [no]"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["sweep.csv", "sweep.json"]
