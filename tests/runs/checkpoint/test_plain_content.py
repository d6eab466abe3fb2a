"""What is stored can be read back, and equals what was given as far as plain values can."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict
from omegaconf import OmegaConf

from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.runs.checkpoint.plain_content import plain_content
from tests.contract.runs import differences


class Kind(enum.Enum):
    ONE = "one"


class Number(enum.IntEnum):
    TWO = 2


@dataclasses.dataclass
class Options:
    width: int
    folder: Path


Pair = collections.namedtuple("Pair", "a b")
DATE = datetime.datetime(2026, 1, 2, 3, 4)

STORED: dict[str, tuple[Any, Any]] = {
    "number of NumPy": (np.float32(0.5), 0.5),
    "integer of NumPy": (np.int64(3), 3),
    "truth of NumPy": (np.bool_(True), True),
    "long double": (np.longdouble(1.5), 1.5),
    "array": (np.arange(3, dtype=np.int16), torch.arange(3, dtype=torch.int16)),
    "array of the other byte order": (np.arange(3, dtype=">f4"), torch.arange(3.0)),
    "array that is a view": (np.arange(6.0)[::-2], torch.tensor([5.0, 3.0, 1.0]).double()),
    "array of text": (np.array(["a", "b"]), ["a", "b"]),
    "array of objects": (np.array([1, None, Path("x")], dtype=object), [1, None, "x"]),
    "type of NumPy": (np.dtype("float32"), "float32"),
    "moment of NumPy": (np.datetime64("2026-01-02"), "2026-01-02"),
    "path": (Path("a") / "b", "a/b"),
    "path of another system": (pathlib.PureWindowsPath("a/b"), "a\\b"),
    "enum": (Kind.ONE, "one"),
    "enum of integers": (Number.TWO, 2),
    "key of an enum": ({Kind.ONE: 1, np.int64(4): 2}, {"one": 1, 4: 2}),
    "dict of OmegaConf": (OmegaConf.create({"a": 2, "b": ["${a}"]}), {"a": 2, "b": [2]}),
    "list of OmegaConf": ([OmegaConf.create([1, {"c": "???"}])], [[1, {"c": "???"}]]),
    "dataclass": (Options(3, Path("x")), {"width": 3, "folder": "x"}),
    "namespace": (argparse.Namespace(lr=np.float64(1)), {"lr": 1.0}),
    "simple namespace": (types.SimpleNamespace(a=1), {"a": 1}),
    "dict of Lightning": (AttributeDict(a=1), {"a": 1}),
    "default dict": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "named tuple": (Pair(1, Path("x")), (1, "x")),
    "frozen set": (frozenset([1, 2]), {1, 2}),
    "queue": (collections.deque([1, 2], maxlen=2), [1, 2]),
    "range": (range(3), [0, 1, 2]),
    "date": (DATE, "2026-01-02T03:04:00"),
    "span": (datetime.timedelta(minutes=2), 120.0),
    "decimal": (decimal.Decimal("0.10"), "0.10"),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "foreign tensor": (torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})), torch.ones(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_is_stored_plainly_and_read_back(name: str, tmp_path: Path) -> None:
    given, expected = STORED[name]
    plain = plain_content({"deep": [{"value": given}]})
    assert plain.refused == {}
    torch.save(plain.content, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")["deep"][0]["value"]
    assert type(found) is type(expected)
    assert differences(found, expected) == []


PLAIN = [
    None, True, 3, 2**70, 0.1, float("inf"), 1j, "ü", b"a", (1, [2]), {3}, {(1, 2): {None: 1.5}},
    torch.float16, torch.device("cpu"), torch.Size([1, 2]), collections.OrderedDict(a=1),
    collections.Counter("aab"), torch.nn.Parameter(torch.ones(2)),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_plain_stays_the_same_object(value: Any, tmp_path: Path) -> None:
    content = {"value": value}
    plain = plain_content(content)
    assert plain.content is content
    assert (plain.changed, plain.quiet, plain.refused) == ({}, {}, {})
    torch.save(content, tmp_path / "a.ckpt")
    assert differences(read_checkpoint(tmp_path / "a.ckpt"), content) == []


REFUSED = {
    "module": (torch.nn.MSELoss(), "MSELoss"),
    "partial": (functools.partial(torch.optim.SGD, lr=0.1), "partial"),
    "function": (lambda: None, "function"),
    "class": (torch.nn.ReLU, "type"),
    "generator": (torch.Generator(), "Generator"),
    "slice": (slice(1, 2), "slice"),
    "records": (np.zeros(2, [("a", int)]), "ndarray"),
    "long range": (range(10**12), "range"),
    "reference to nothing": (OmegaConf.create({"a": "${nowhere}"}), "DictConfig: Interpolation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_left_out_and_named(name: str) -> None:
    value, kind = REFUSED[name]
    plain = plain_content({"hyper_parameters": {"it": [1, value], "lr": 0.1}})
    assert plain.content == {"hyper_parameters": {"it": [1], "lr": 0.1}}
    assert list(plain.refused) == ["hyper_parameters.it[1]"]
    assert plain.refused["hyper_parameters.it[1]"].startswith(kind)
    assert "save_hyperparameters(ignore=['it'])" in plain.explain()


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert plain_content({"a": loop}).refused == {
        "a[1]": "list that contains itself or nests too deeply"
    }


def test_what_is_shared_stays_shared_and_the_given_is_not_changed() -> None:
    shared = [Path("x")]
    content = {"a": shared, "b": shared}
    plain = plain_content(content)
    assert plain.content["a"] is plain.content["b"]
    assert content["a"][0] == Path("x")


def test_classes_that_the_user_allows_stay() -> None:
    with torch.serialization.safe_globals([Options]):
        content = {"a": Options(1, Path("x"))}
        assert plain_content(content).content is content


def test_the_class_of_the_hyper_parameters_becomes_its_name() -> None:
    config = OmegaConf.create({"lr": 1})
    plain = plain_content({"hyper_parameters": config, "hparams_type": type(config)})
    assert plain.content == {
        "hyper_parameters": {"lr": 1}, "hparams_type": "omegaconf.dictconfig.DictConfig"
    }  # fmt: skip
