"""Calls, dataclasses and mappings against the annotations of what they fill."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from lightning_prune.annotations import Above, AtLeast, Between
from lightning_prune.validation import Problem, check_arguments, problems, read, validated


@validated
@dataclass(frozen=True)
class Pool:
    size: Annotated[int, AtLeast(1)] = 2
    kind: Literal["mean", "max"] = "mean"


@validated
@dataclass(frozen=True)
class Net:
    channels: Annotated[tuple[int, ...], AtLeast(1)]
    pools: tuple[Pool, ...] = ()
    last: Pool | None = None
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.channels) < len(self.pools):
            raise ValueError("more pools than channels")


class Base:
    @validated
    def __init__(
        self, rate: Annotated[float, Above(0)], *rest: int, owner: Any = None, **more: int
    ):
        self.given = (rate, rest, owner, more)


@dataclass(frozen=True)
class Names(Mapping[str, int]):
    own: dict[str, int]

    def __getitem__(self, key: str) -> int:
        return self.own[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)


def test_every_argument_is_in_one_report():
    with pytest.raises(ValueError) as caught:
        Net([4, 0], pools=[{"size": 0, "kinds": 1}], names="a")
    assert str(caught.value).splitlines() == [
        "channels=[4, 0]: pass a list of integers of at least 1",
        "pools[0].kinds is no known key: did you mean kind?",
        "pools[0].size=0: pass an integer of at least 1",
        "names='a': pass a list of texts",
    ]


def test_lists_become_tuples_and_mappings_dataclasses():
    assert Net([4, 8], [{"size": 3}], {"kind": "max"}) == Net((4, 8), (Pool(3),), Pool(kind="max"))
    assert read(Net, {"channels": [4], "last": {"size": 1}}, "net") == Net((4,), last=Pool(1))
    assert read(Net, Net((4,)), "net") == Net((4,))


def test_the_dataclass_itself_has_the_last_word():
    with pytest.raises(ValueError, match=r"^net: more pools than channels$"):
        read(Net, {"channels": [4], "pools": [{}, {}]}, "net")


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ({}, ["net.channels is missing: pass a list of integers of at least 1"]),
        ({"channels": [1], "last": 3}, ["net.last=3: pass a mapping or null"]),
        ({"chanels": [1], "xyz": 2}, [
            "net.chanels is no known key: did you mean channels?",
            "net.xyz is no known key: allowed are channels, pools, last, names",
            "net.channels is missing: pass a list of integers of at least 1",
        ]),
        ([1], ["net=[1]: pass a mapping"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_mapping(content: Any, lines: list[str]):
    with pytest.raises(ValueError) as caught:
        read(Net, content, "net")
    assert str(caught.value).splitlines() == lines


def test_a_call_with_any_number_of_arguments():
    owner = object()
    assert Base(1, 2, 3, owner=owner, depth=4).given == (1, (2, 3), owner, {"depth": 4})
    with pytest.raises(ValueError, match=r"^rate=0: pass a number above 0$"):
        Base(0)
    with pytest.raises(TypeError, match="rate"):  # Python's own sentence
        Base()


def test_a_dataclass_that_is_a_mapping_is_an_object():
    names = Names({"a": 1})

    @validated
    def keep(names: Names | None) -> Any:
        return names

    assert keep(names) is names


def test_arguments_that_were_completed_first():
    check_arguments(Base.__init__, {"rate": 0.5, "unknown": "x"})
    with pytest.raises(ValueError, match=r"^rate=true: pass a number above 0$"):
        check_arguments(Base.__init__, {"rate": True})


def test_a_value_alone():
    annotation = Annotated[float | None, Between(0, 1, "a fraction", ends="()")]
    assert list(problems(annotation, None, "x.y")) == []
    assert list(problems(annotation, 1, "x.y")) == [
        Problem("x.y", "x.y=1: pass a number in (0, 1) or null, a fraction")
    ]


def test_a_decorated_function_keeps_its_name_and_signature():
    assert Base.__init__.__qualname__ == "Base.__init__"
    assert list(inspect.signature(Net).parameters) == ["channels", "pools", "last", "names"]
