"""Thousands of changed files: each is read, or refused with one sentence; nothing else happens."""

import functools
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prune.detection.weights.read_weights import read_weights
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.inert_pickle import read_torch_zip
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.loading import load_pruned
from lightning_prune.runs.checkpoint.module_state import read_module_state
from lightning_prune.runs.checkpoint.newest_checkpoint import search_checkpoints
from tests.faults.apart import apart
from tests.faults.mutations import KINDS, LEVELS, Small, file_of, mutate, write

original = functools.cache(file_of)


def outline(value: Any) -> Any:
    """Types, shapes and plain values, without the numbers in tensors and without devices."""
    if isinstance(value, Tensor):
        return "tensor", tuple(value.shape), value.dtype, value.requires_grad
    if isinstance(value, dict):
        return type(value), [(outline(key), outline(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [outline(item) for item in value]
    return type(value), repr(value)


def attempt(do: Any, *allowed: type[BaseException]) -> str:
    try:
        do()
    except allowed as error:
        text = str(error)
        assert text.strip(), "an error without a sentence"
        if isinstance(error, CheckpointError):
            assert len(text) < 2000, f"a sentence of {len(text)} characters"
            assert text.splitlines() == [text], "a sentence in several lines"
        return "refused"
    return "read"


def read_all(number: int) -> str:
    """Read the mutation of a number in all ways; raise what no user should see."""
    kind = KINDS[number % len(KINDS)]
    level = LEVELS[number // len(KINDS) % len(LEVELS)]
    folder = Path(tempfile.mkdtemp(prefix="mutation"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = write(folder, kind, mutate(kind, level, original(kind), number))
            return f"{kind} {level}: {_ways(kind, path)}"
    finally:
        shutil.rmtree(folder)


def _ways(kind: str, path: Path) -> str:
    # ValueError: what the readers document; strict loads say RuntimeError, missing hyper-parameters
    # and those of a wrong type TypeError, as the constructors of a user's classes do.
    if kind == "safetensors":
        read_weights_too = attempt(lambda: read_weights(path), ValueError)
        assert read_weights_too == "refused"  # it is no YOLOv8
        return attempt(lambda: read_module_state(path), CheckpointError)
    if kind == "module":
        attempt(lambda: read_weights(path), ValueError)
        return attempt(lambda: read_torch_zip(path), CheckpointError)
    shapes: list[Any] = []
    found = attempt(lambda: shapes.append(read_checkpoint(path, "meta")), CheckpointError)
    whole: list[Any] = []
    content = attempt(lambda: whole.append(read_checkpoint(path)), CheckpointError)
    assert content == "refused" or outline(shapes[0]) == outline(whole[0]), "two files in one"
    search_checkpoints(path.parent)
    attempt(lambda: read_torch_zip(path), CheckpointError)
    attempt(lambda: load_pruned(Small, path), ValueError, RuntimeError, TypeError)
    return content if found == "read" else found


def run(numbers: range) -> Counter[str]:
    """Return how many mutations came to what; fail with the first that came to something else."""
    results = dict(apart(read_all, numbers))
    wrong = {n: text for n, text in results.items() if not text.endswith((": read", ": refused"))}
    assert not wrong, "\n".join(f"{number}: {text}" for number, text in wrong.items())
    return Counter(results.values())


def test_mutations_are_read_or_refused(capsys: pytest.CaptureFixture[str]):
    for kind in KINDS:
        original(kind)
    counts = run(range(160))
    assert sum(counts.values()) == 160
    assert {text.split()[0] for text in counts} == set(KINDS)
    assert sum(n for text, n in counts.items() if text.endswith("refused")) > 80
    assert any(text.endswith(": read") for text in counts)


@pytest.mark.slow
def test_three_thousand_mutations_are_read_or_refused(capsys: pytest.CaptureFixture[str]):
    for kind in KINDS:
        original(kind)
    counts = run(range(1000, 4000))
    assert sum(counts.values()) == 3000
    with capsys.disabled():
        print("\n" + "\n".join(f"{text}: {count}" for text, count in sorted(counts.items())))


def test_what_crashes_hangs_or_raises_is_noticed():
    def harm(number: int) -> str:
        if number == 1:
            import ctypes

            ctypes.string_at(0)
        if number == 2:
            while True:
                pass
        if number == 3:
            torch.zeros(2**32)
        if number == 4:
            raise KeyError("x")
        return "fine"

    results = dict(apart(harm, range(6), seconds=3.0, megabytes=500))
    assert results[0] == results[5] == "fine"
    assert results[1] == "CRASH by signal 11"
    assert results[2] == "HANG of 3 s"
    assert results[3].startswith("RuntimeError")
    assert results[4] == "KeyError: 'x'"
