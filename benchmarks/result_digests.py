"""What a finished run came to, as short plain values that name what they are digests of.

The functions of ``same_results.py``: digest the files of a run, and find what differs between the
digests of two.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What a run is known by; logs, configurations and digest files are not results.
FILES = ("*.ckpt", "metrics.csv", "pruning_report.json", "result.json", "pruning_config.json")
RECORDS = "records"
# Weights, those that an average stands for, and optimizers; not the states of callbacks.
SECTIONS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
# Keys of reports and columns of metrics that say when, where and with what a run was made.
CIRCUMSTANCES = {"latency_ms", "versions", "device"}

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Difference:
    """One kind of value in one file that differs.

    Attributes:
        run: Name of the run.
        file: The file, relative to the run's folder.
        item: Which part of it: a section of a checkpoint, a column, a key of a report.
        count: How many of its values differ.
        first: Which of them comes first.
        before: What that was.
        after: What it is.
    """

    run: str
    file: str
    item: str
    count: int
    first: str
    before: str
    after: str


# --- digesting ----------------------------------------------------------------------------------


def digest_folder(folder: Path) -> dict[str, Any]:
    """Return the content of a run's files: the records of its epochs first, then by name."""
    records = sorted(folder.rglob(f"{RECORDS}/*.json"))
    files = sorted({path for pattern in FILES for path in folder.rglob(pattern)})
    return {path.relative_to(folder).as_posix(): _content(path) for path in [*records, *files]}


def write_record(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write digests of a run on its way into its folder, where ``digest_folder`` finds them."""
    path = folder / RECORDS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(readable(content)))


def readable(value: Any) -> Any:
    """Replace the tensors in a nest by what they are, as a line of text.

    >>> readable({"weight": torch.tensor([[0.0], [1.0]])})
    {'weight': 'float32 [2, 1] 22b6f43bd8d27738, zero rows: [0]'}
    """
    if isinstance(value, Tensor):
        return _tensor_line(value)
    if isinstance(value, Mapping):
        return {str(key): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _tensor_line(tensor: Tensor) -> str:
    tensor = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    line = f"{str(tensor.dtype).removeprefix('torch.')} {[*tensor.shape]} {digest[:16]}"
    if tensor.ndim < 2:
        return line
    zero = (tensor.flatten(1) == 0).all(1).nonzero().flatten().tolist()
    return f"{line}, zero rows: {zero}" if zero else line


def _content(path: Path) -> Any:
    if path.suffix == ".ckpt":
        content = torch.load(path, map_location="cpu", weights_only=True)
        return readable({name: content[name] for name in SECTIONS if name in content})
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            # An empty cell only says that another row has the column.
            return [
                {key: cell for key, cell in row.items() if cell and key not in CIRCUMSTANCES}
                for row in rows
            ]
    return _without_circumstances(json.loads(path.read_text()))


def _without_circumstances(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_circumstances(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in CIRCUMSTANCES}
    return {key: _without_circumstances(item) for key, item in kept.items()}


# --- comparing ----------------------------------------------------------------------------------


def rename(runs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return keys of reports and columns of metrics their new names; tensors keep theirs."""
    return {
        run: {
            file: content if file.endswith(".ckpt") or RECORDS in file else _renamed(content, names)
            for file, content in files.items()
        }
        for run, files in runs.items()
    }


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {names.get(key, key): _renamed(item, names) for key, item in value.items()}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between the digests of runs, in the order in which it came to be."""
    ours, theirs = dict(_leaves(before)), dict(_leaves(after))
    found: dict[tuple[str, str, str], list[Place]] = {}
    for place in [*ours, *(place for place in theirs if place not in ours)]:
        if _text(ours, place) != _text(theirs, place):
            found.setdefault(_item(place), []).append(place)
    return [
        Difference(
            *item,
            len(places),
            "/".join(str(part) for part in places[0][2:]),
            _text(ours, places[0]),
            _text(theirs, places[0]),
        )
        for item, places in found.items()
    ]


def _leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the values of a nest with their places; a list of numbers or words is one value."""
    if isinstance(value, Mapping) and (value or not place):
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, index))
    else:
        yield place, value


def _text(leaves: Mapping[Place, Any], place: Place) -> str:
    """Return a value as text, which tells 0.0 from -0.0 and NaN from a number."""
    return json.dumps(leaves[place]) if place in leaves else "nothing"


def _item(place: Place) -> tuple[str, str, str]:
    """Return the run, the file and what all values of a kind in it have in common."""
    run, file, path = str(place[0]), "".join(map(str, place[1:2])), place[2:]
    if not path:
        return run, file, ""
    first = path[0] if isinstance(path[0], str) else "rows"
    in_list = any(isinstance(part, int) for part in path)
    return run, file, f"{first}/{path[-1]}" if in_list else str(first)
