"""Structures of all kinds; the paths are what a reader of the structure would write."""

import enum
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node, tree_leaves

from lightning_prune.functional.named_tensors import named_tensors, unknown_types

ONE, TWO = torch.tensor(1), torch.tensor(2)


@dataclass
class ModelOutput(OrderedDict):
    """A dict and a dataclass at once; what is None is not in the dict."""

    loss: Any = None
    logits: Any = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


class Registered:
    """A container that its author registered with PyTorch."""

    def __init__(self, parts: list[Tensor]):
        self.parts = parts


register_pytree_node(
    Registered, lambda it: (it.parts, None), lambda parts, _: Registered(list(parts))
)


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (ONE, [()]),
        (ModelOutput(logits=ONE), [("logits",)]),
        (make_dataclass("Slots", ["a", "b"], slots=True)(ONE, [TWO]), [("a",), ("b", 0)]),
        (namedtuple("Pair", "x y")(ONE, None), [("x",)]),
        (UserDict(a=defaultdict(list, b=ONE)), [("a", "b")]),
        ({0: ONE, "1": (TWO, {})}, [(0,), ("1", 0)]),
        (Registered([ONE, TWO]), [(0,), (1,)]),
        (None, []),
    ],
)
def test_paths(value: Any, paths: list[tuple]):
    assert list(named_tensors(value)) == paths
    assert unknown_types(value) == []


def test_plain_containers_keep_the_order_of_pytree():
    value = {"b": [ONE, (TWO, None)], "a": {"z": TWO, "y": ONE}}
    assert list(named_tensors(value).values()) == [*tree_leaves(value)[:2], TWO, ONE]


def test_only_what_may_hide_tensors_is_unknown():
    class Hidden:
        pass

    value = (ONE, 1, "a", ONE.shape, ONE.dtype, Colour.RED, {ONE}, Hidden(), [Hidden()])
    assert [name.rsplit(".", 1)[-1] for name in unknown_types(value)] == ["set", "Hidden"]
