"""Writes a bundle: files that passed their gates, a card for people and one for programs."""

import hashlib
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning_prune
from lightning_prune.export.bundle.card import card
from lightning_prune.export.bundle.gate import Gate, Judge
from lightning_prune.export.bundle.kinds import Kind
from lightning_prune.export.bundle.source import Source
from lightning_prune.export.bundle.writers import WRITERS, open_to_judge
from lightning_prune.files import write_bytes
from lightning_prune.files.write_json import write_json

BUNDLE = "bundle.json"
CARD = "README.md"
_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "safetensors", "numpy")


@dataclass
class Bundle:
    """What a bundle came to.

    Attributes:
        folder: Where it is.
        content: That of ``bundle.json``.
        written: Names of the files that were written, with their gates.
        refused: Kinds that are not in it, with the reason.
    """

    folder: Path
    content: dict[str, Any]
    written: dict[str, Gate] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def write_bundle(
    source: Source,
    kinds: Sequence[Kind],
    judge: Judge,
    folder: Path,
    facts: Mapping[str, Any],
    notify: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Write a network in several formats, each judged in its own runtime first.

    A file that misses its gate is not written, and the others are. ``bundle.json`` comes last: a
    folder that has one is whole.

    Args:
        source: The network, and inputs to calibrate on.
        kinds: What to write, in this order.
        judge: Compares files with the checkpoint.
        folder: A new or empty folder.
        facts: What is said of the network: where it is from, what was pruned.
        notify: Takes a line for each step.
    """
    entries: list[dict[str, Any]] = []
    bundle = Bundle(folder, {})
    for kind in kinds:
        notify(f"{kind.name} ...")
        name = f"{source.stem}{kind.suffix}"
        try:
            files = WRITERS[kind.name](source, name)
            gate = _judged(source, kind, judge, files)
        except ValueError as error:
            bundle.refused[kind.name] = str(error)
            notify(f"{kind.name} is left out: {error}")
            continue
        if not gate.passed:
            bundle.refused[kind.name] = gate.sentence
            notify(f"{kind.name} is not written: {gate.sentence}")
            continue
        for one, content in files.items():
            write_bytes(folder / one, content)
        bundle.written[name] = gate
        entries.append(_entry(kind, name, files, gate))
        notify(f"{name}: {gate.sentence}")
    bundle.content = {
        "bundle": 1,
        "lightning_prune": lightning_prune.__version__,
        "versions": versions(),
        "machine": platform.machine(),
        **facts,
        "inputs": list(source.input_names),
        "names": list(source.names),
        "calibration_images": sum(len(one[0]) for one in source.calibration),
        "files": entries,
        "refused": dict(bundle.refused),
    }
    write_bytes(folder / CARD, card(bundle.content).encode())
    write_json(folder / BUNDLE, bundle.content)
    return bundle


def versions() -> dict[str, str]:
    """Return the versions of the packages that files are made and judged with."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _judged(source: Source, kind: Kind, judge: Judge, files: Mapping[str, bytes]) -> Gate:
    """Compare the very bytes that will be written."""
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            Path(place, name).write_bytes(content)
        run = open_to_judge(source, Path(place, next(iter(files))))
        return judge.close(run) if kind.int8 else judge.exact(run)


def _entry(kind: Kind, name: str, files: Mapping[str, bytes], gate: Gate) -> dict[str, Any]:
    return {
        "format": kind.name,
        "runtime": kind.title,
        "file": name,
        "files": [
            {"name": one, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for one, content in files.items()
        ],
        "int8": kind.int8,
        "gate": gate.to_dict() | {"sentence": gate.sentence},
    }
