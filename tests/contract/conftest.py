"""Writes what the suite found as a table: CONTRACT_MATRIX=docs/contract.md names the file."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.registry import MODULES, RECIPES

TITLE = (
    "# The contract\n\n"
    "What every recipe keeps with every module. `make contract` runs the suite (`tests/contract`) "
    "and writes this page; recipes and modules are listed in `tests/contract/registry.py`, and a "
    "new one joins by one entry. A row is one promise, and a mark stands for all tests of it.\n\n"
    "yes: all passed when they were run last. no: one failed. -: does not apply.\n"
)
Found = dict[tuple[str, str, str], list[str]]


def subject(item: pytest.Item) -> tuple[str, str] | None:
    """Return recipe and module of a test."""
    values: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for value in values.values():
        if isinstance(value, tuple) and len(value) == 2 and value[0] in RECIPES:
            return value if value[1] in MODULES else (value[0], "classifier")
    return (values["recipe"], values.get("module", "classifier")) if "recipe" in values else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    report = yield
    mark, pair = item.get_closest_marker("contract"), subject(item)
    if mark is not None and pair is not None:
        report.user_properties.append(("contract", [mark.args[0], *pair]))
    return report


class Matrix:
    """Gathers the reports of all workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: Found = defaultdict(list)
        self.before = self.read()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for name, value in report.user_properties:
                if name == "contract":
                    self.found[tuple(value)].append(report.outcome)
                    self.write()  # each time: a long run may be cut off

    def write(self) -> None:
        known = {module for _, _, module in [*self.found, *self.before]}
        tables = [f"\n{self.table(module)}" for module in MODULES if module in known]
        self.path.write_text(TITLE + "".join(tables))

    def table(self, module: str) -> str:
        items = sorted({i for i, _, own in [*self.found, *self.before] if own == module})
        lines = [f"## {module}", "", "| promise | " + " | ".join(RECIPES) + " |"]
        lines.append("|---" * (len(RECIPES) + 1) + "|")
        for item in items:
            cells = [self.cell(item, recipe, module) for recipe in RECIPES]
            lines.append(f"| {item} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, ""])

    def cell(self, item: str, recipe: str, module: str) -> str:
        outcomes = set(self.found.get((item, recipe, module), []))
        if "failed" in outcomes:
            return "no"
        if "passed" in outcomes:
            return "yes"
        if outcomes:
            return "-"
        return self.before.get((item, recipe, module), "-")

    def read(self) -> dict[tuple[str, str, str], str]:
        """Return the cells of the page as it is: a part of the suite may be run alone."""
        cells: dict[tuple[str, str, str], str] = {}
        module, recipes = "", []
        for line in self.path.read_text().splitlines() if self.path.is_file() else []:
            row = [cell.strip() for cell in line.strip("|").split("|")]
            module = line[3:] if line.startswith("## ") else module
            if row[0] == "promise":
                recipes = row[1:]  # those of the page: there may be new ones
            elif len(row) == len(recipes) + 1 and set(row[0]) != {"-"}:
                cells |= {(row[0], r, module): c for r, c in zip(recipes, row[1:], strict=True)}
        return cells


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("CONTRACT_MATRIX")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(Path(path)), "contract-matrix")
