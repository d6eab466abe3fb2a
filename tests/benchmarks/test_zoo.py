"""The zoo's runner on toys, its limits, and its page. The libraries themselves are not needed."""

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def module(name: str) -> Any:
    return importlib.import_module(name)


def run(*words: str | Path) -> str:
    command = [sys.executable, "benchmarks/zoo.py", *map(str, words)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name", ["zoo", "zoo_models", "zoo_judge", "zoo_peer", "zoo_table", "graph"]
)
def test_examples_in_the_docstrings_hold(name: str) -> None:
    found = doctest.testmod(module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert not found.failed


def test_a_toy_is_judged_and_written(tmp_path: Path) -> None:
    output, table = tmp_path / "zoo.json", tmp_path / "zoo.md"
    printed = run("--quick", "--output", output, "--table", table)
    assert "toy:plain" in printed
    result = json.loads(output.read_text())
    columns = result["rows"]["toy:plain"]["columns"]
    assert {"labels", "trial", "torch_pruning"} <= columns.keys()
    # Of 11184 MACs are left: 36 positions x (3 x 9 + 4) x 4 channels.
    assert {column["left"] for column in columns.values()} == {0.5}
    assert {column["kind"] for column in columns.values()} == {"full"}
    assert columns["trial"]["unlisted"] == 0
    assert columns["trial"]["refused_macs"] == pytest.approx(4 / 31, abs=1e-4)
    assert "| plain | full 0.50 |" in table.read_text()


def test_names_are_those_of_the_issue() -> None:
    models = module("zoo_models")
    counts = {library: len(names) for library, names in models.NAMES.items()}
    assert counts == {
        "tv": 17, "timm": 93, "ul": 14, "smp": 11, "hf": 10, "tvdet": 7, "tvseg": 4, "tvvid": 4,
        "tvq": 4, "tvflow": 1,
    }  # fmt: skip
    assert len(models.selected([])) == len(set(models.selected([]))) == 165
    assert set(models.NAMES["hf"]) <= models.TRANSFORMERS.keys()
    with pytest.raises(ValueError, match="neither a library nor library:model"):
        models.selected(["resnet18"])


@pytest.mark.parametrize("name", ["tv:vit_b_32", "tv:squeezenet1_0"])
def test_torchvision_models_are_built(name: str) -> None:
    model, example = module("zoo_models").make(name)
    assert not model.training
    with torch.no_grad():
        assert model(example).shape == (1, 10)


def forever() -> None:
    while True:
        pass


def too_much() -> int:
    return len(bytearray(400 * 2**20))


def fails() -> None:
    raise KeyError("no such thing")


def ends_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("work", "kind", "text"),
    [
        (forever, None, "processor time"),
        (too_much, "MemoryError", ""),
        (fails, "KeyError", "no such thing"),
        (ends_itself, "signal", "SIGKILL"),
    ],
)
def test_limits_end_a_process_with_the_reason(work: Any, kind: str | None, text: str) -> None:
    found = module("zoo_process").Limited(work, seconds=1, megabytes=200).wait()
    assert found.get("kind") == kind
    assert text in found.get("hang", found.get("error"))


def test_who_sleeps_is_ended_by_the_clock() -> None:
    begin = time.monotonic()
    run = module("zoo_process").Limited(lambda: time.sleep(60), 1, 200, clock=0.5)
    assert "the clock" in run.wait()["hang"]
    assert time.monotonic() - begin < 20


def test_a_result_is_returned() -> None:
    run = module("zoo_process").Limited(lambda: {"a": [1, None]}, 5, 200)
    assert run.wait() == {"value": {"a": [1, None]}}


class HeadsOfFixedSize(nn.Module):
    """Labels alone cut it in the wrong place: only a trial knows of the sizes in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c = nn.Linear(8 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)).view(-1, 8 * 4))


def test_columns_say_what_the_trial_brings() -> None:
    judge = module("zoo_judge")
    model, example = judge.prepared((HeadsOfFixedSize(), torch.zeros(1, 3, 2, 2)))
    finders = judge.finders()
    trial = judge.judge(model, example, finders["trial"])
    assert trial["kind"] in ("full", "part")
    assert trial["unlisted"] == 0
    assert 0 < trial["left"] < 1
    assert judge.judge(model, example, lambda *_: 1 / 0)["kind"] == "crashed"

    def refuse(*_: Any) -> Any:
        raise ValueError("cannot be traced")

    refused = judge.judge(model, example, refuse)
    assert (refused["kind"], refused["remark"]) == (
        "refused", "groups: ValueError: cannot be traced"
    )  # fmt: skip


def test_a_wrong_group_is_found_wrong() -> None:
    """Channels that a softmax mixes are no group: what is left would be computed from others."""
    from dataclasses import replace

    from lightning_prune.graph.trace import trace_groups

    judge = module("zoo_judge")
    net = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model, example = judge.prepared((net, torch.zeros(1, 2)))

    def shifted(net: nn.Module, example: Any) -> Any:
        """Take away other inputs of the last layer than those of the channels that go."""
        groups = trace_groups(net, example)
        group = groups["1"]
        *others, last = group.members
        last = replace(last, index=last.index.roll(3))
        members = (*others, last)
        return replace(groups, groups=groups.groups | {"1": replace(group, members=members)})

    assert judge.judge(model, example, trace_groups)["kind"] == "full"
    found = judge.judge(model, example, shifted)
    assert found["kind"] == "wrong"
    assert "masked and cut differ" in found["remark"]


def test_layers_that_nobody_mentions_are_counted() -> None:
    from lightning_prune.graph.group import ChannelGroups

    judge = module("zoo_judge")
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Sequential(nn.Linear(2, 2), nn.ReLU())})
    assert judge.unlisted(net, ChannelGroups({}, {"a": "why"})) == ["b.0"]
    assert judge.unlisted(net, ChannelGroups({}, {"a": "why", "b": "a block"})) == []


def test_output_layers_are_found_behind_sums_and_frozen_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.last = nn.Conv2d(4, 1, 1).requires_grad_(False)
            self.linear = nn.Linear(4, 2, bias=False)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.stem(x).relu()
            y = (self.left(x) + self.right(x)).sigmoid()
            return self.last(y), {"b": self.linear(x.transpose(1, 3))}

    net = Net().eval()
    found = module("zoo_peer").output_layers(net, torch.zeros(1, 3, 2, 2))
    assert {*found} == {net.left, net.right, net.linear}


def result(**kinds: dict[str, Any]) -> dict[str, Any]:
    rows = {
        f"tv:{name}": {"name": f"tv:{name}", "commit": "abc1234", "columns": columns}
        for name, columns in kinds.items()
    }
    versions = {"torch": "2.14", "torch-pruning": "1.6.1"}
    return {"rows": rows, "versions": versions, "limits": {"seconds": 60}}


def test_the_page_has_totals_and_reasons() -> None:
    full = {"kind": "full", "left": 0.25, "seconds": 1.5, "groups": 3, "unlisted": 0}
    full |= {"refused_macs": 0.07, "reasons": [["no | reason", 2, 0.07]], "remark": ""}
    hang = {"kind": "hang", "remark": "no answer"}
    labels = {"kind": "wrong", "left": 0.2, "seconds": 0.5, "remark": "differ"}
    page = module("zoo_table").page(
        result(
            one={"labels": labels, "trial": full, "torch_pruning": hang},
            two={"labels": hang, "trial": hang, "torch_pruning": full},
            three={},
        )
    )
    lines = page.splitlines()
    assert "hang: no answer in 60 s of processor time." in page
    assert "torch-pruning 1.6.1: its `BasePruner`" in page
    assert "3 of the zoo's 165 models, measured at abc1234 on one thread, with torch 2.14." in page
    heads = "| full | labels alone | with the trial cut | torch-pruning | wrong | crashed | hang |"
    assert any(line.startswith(heads) for line in lines)
    assert "| torchvision, classifiers | 0 of 2 | 1 of 2 | 1 of 2 | 0 | 0 | 1 | 0 | 1 |" in lines
    assert "| all | 0 of 2 | 1 of 2 | 1 of 2 | 0 | 0 | 1 | 0 | 1 |" in lines
    assert (
        "| one | wrong 0.20 | full 0.25 | hang | 0.50 | 1.00 | 3 | 7% | 0 | no \\| reason (2, 7%) |"
    ) in lines
    assert "| two | hang | hang | full 0.25 |  |  |  |  |  | no answer |" in lines
    # Every line of a table has as many cells as its head.
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.replace("\\|", "").count("|") == below.replace("\\|", "").count("|")


def test_a_column_of_attribute_changes_comes_with_the_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = module("zoo_judge")
    seen = []

    def build_groups(model: Any, example: Any, attributes: bool = True) -> None:
        seen.append(attributes)

    monkeypatch.setattr(judge, "build_groups", build_groups)
    finders = judge.finders()
    assert list(finders) == ["labels", "trial", "attributes"]
    finders["trial"](None, None), finders["attributes"](None, None)
    assert seen == [False, True]
