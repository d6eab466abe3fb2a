"""The zoo's results as a page of Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from zoo_models import NAMES, TITLES

COLUMNS = {
    "labels": "labels alone",
    "trial": "with the trial cut",
    "attributes": "with attribute changes",
    "torch_pruning": "torch-pruning",
}
FAULTS = ("wrong", "crashed", "hang")
Row = Mapping[str, Any]

HEAD = (
    "# The zoo",
    "Networks of public libraries, pruned to half the channels of every group, weights random. "
    "`python benchmarks/zoo.py --table docs/zoo.md` measures them and writes this page; `make zoo` "
    "installs the libraries first.",
    "full: less than 0.6 of the MACs are left. part: less than 0.9. none: more. refused: the model "
    "as a whole, with the reason. wrong: the cut model gives something else than the masked one, "
    "or has other MACs than predicted. crashed: an exception. hang: no answer in {seconds} s of "
    "processor time.",
    "Labels alone: every group of the trace is cut. With the trial cut: those that a trial on a "
    "copy accepts. With attribute changes: sizes that modules hold are changed too. torch-pruning "
    "{peer}: its `BasePruner` with `MagnitudeImportance`, local, the layers that produce the "
    "output left out; MACs are counted in the same way, but what its models compute is not "
    "compared with anything. wrong, crashed and hang are counted in the last column of ours.",
    "{count} of the zoo's {names} models, measured at {commits} on one thread, with {versions}.",
)
LEGEND = (
    "In the tables below: processor seconds of the labels and of what the trial adds; groups; the "
    "fraction of the MACs in layers that are refused; layers that are in no group and in no list "
    "of refusals; remarks, and the costliest reasons of refusals with the number of layers and "
    "their fraction of the MACs."
)


def final(row: Row) -> tuple[str, Row]:
    """Return the package's last word on a model: the column with most switched on."""
    columns = row["columns"]
    name = next((c for c in ("attributes", "trial", "labels") if c in columns), "")
    return name, columns.get(name, {"kind": "missing", "remark": row.get("missing", "")})


def present(rows: Sequence[Row]) -> list[str]:
    """Return the columns that some row has, in order."""
    return [name for name in COLUMNS if any(name in row["columns"] for row in rows)]


def cell(column: Row | None) -> str:
    """Return a column's class and the MACs that are left.

    >>> cell({"kind": "full", "left": 0.2664}), cell({"kind": "hang"}), cell(None)
    ('full 0.27', 'hang', '')
    """
    if column is None:
        return ""
    left = column.get("left")
    return column["kind"] + ("" if left is None else f" {left:.2f}")


def of_all(rows: Sequence[Row], column: str) -> str:
    """Return e.g. ``16 of 17``: how many models are full, of those that were there.

    >>> of_all([{"columns": {"trial": {"kind": "full"}}}, {"columns": {}}], "trial")
    '1 of 1'
    """
    kinds = [row["columns"][column]["kind"] for row in rows if column in row["columns"]]
    return f"{kinds.count('full')} of {len(kinds)}" if kinds else ""


def by_library(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by library, in the order of the titles."""
    found: dict[str, list[Row]] = {name: [] for name in TITLES}
    for row in rows:
        found.setdefault(row["name"].partition(":")[0], []).append(row)
    return {name: some for name, some in found.items() if some}


def line(cells: Sequence[Any]) -> str:
    """Return a line of a table; bars within cells are escaped."""
    return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """Return a table."""
    return "\n".join([line(head), "|" + "---|" * len(head), *(line(cells) for cells in body)])


def totals(rows: Sequence[Row]) -> str:
    """Return the table of how many models are full, and of what must not happen."""
    columns = present(rows)
    libraries = by_library(rows)
    groups = {TITLES.get(name, name): some for name, some in libraries.items()} | {"all": rows}
    body = []
    for title, some in groups.items():
        kinds = Counter(final(row)[1]["kind"] for row in some)
        unlisted = sum(final(row)[1].get("unlisted", 0) > 0 for row in some)
        body.append([title, *(of_all(some, c) for c in columns), *(kinds[f] for f in FAULTS)])
        body[-1] += [unlisted, kinds["missing"]]
    head = [
        "full",
        *(COLUMNS[c] for c in columns),
        *FAULTS,
        "models with unlisted layers",
        "missing",
    ]
    return table(head, body)


def seconds(value: float | None) -> str:
    """Return seconds for the table.

    >>> seconds(0.1234), seconds(None)
    ('0.12', '')
    """
    return "" if value is None else f"{value:.2f}"


def why(column: Row) -> str:
    """Return the remark on a model and the costliest reasons of its refusals."""
    reasons = [f"{text} ({n}, {cost:.0%})" for text, n, cost in column.get("reasons", ())]
    return "; ".join([text for text in (column.get("remark", ""),) if text] + reasons)


def model_row(row: Row, columns: Sequence[str]) -> list[Any]:
    """Return one model's cells."""
    _, last = final(row)
    labels = row["columns"].get("labels", {}).get("seconds")
    both = last.get("seconds")
    trial = None if labels is None or both is None else max(0.0, both - labels)
    refused = last.get("refused_macs")
    return [
        row["name"].partition(":")[2],
        *(cell(row["columns"].get(name)) for name in columns),
        seconds(labels),
        seconds(trial),
        last.get("groups", ""),
        "" if refused is None else f"{refused:.0%}",
        last.get("unlisted", ""),
        why(last),
    ]


def page(result: Mapping[str, Any]) -> str:
    """Return the page of a result file: totals, then a table for each library."""
    rows = list(result["rows"].values())
    columns = present(rows)
    versions = dict(result["versions"])
    commits = sorted({row["commit"] for row in rows})
    facts = {
        "count": len(rows),
        "names": sum(map(len, NAMES.values())),
        "seconds": result["limits"]["seconds"],
        "peer": versions.pop("torch-pruning", "(missing)"),
        "commits": ", ".join(commits),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    parts = [*(text.format(**facts) for text in HEAD), totals(rows), LEGEND]
    head = ["model", *(COLUMNS[c] for c in columns), "labels, s", "trial, s", "groups"]
    head += ["refused", "unlisted layers", "remarks and reasons"]
    for name, some in by_library(rows).items():
        body = [model_row(row, columns) for row in some]
        parts += [f"## {TITLES.get(name, name)}", table(head, body)]
    return "\n\n".join(parts) + "\n"
