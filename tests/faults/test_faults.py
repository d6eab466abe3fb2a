"""A run that is killed again and again ends as the undisturbed one, bit by bit."""

import functools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from tests.contract.registry import RECIPES
from tests.faults.nursery import REPOSITORY, Nursery


@pytest.fixture(scope="module")
def faults() -> Any:
    """The harness, which the benchmark shares."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import fault_harness

        return fault_harness
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def killed(
    faults: Any, nursery: Nursery, folder: Path, recipe: str, kills: Any, without: str = ""
) -> tuple[Any, list[Any], list[str]]:
    """Return the undisturbed run, what each kill left, and where the ends differ."""
    launch = functools.partial(nursery.start, recipe=recipe, without=without)
    whole = faults.undisturbed(launch, folder / "run")
    remains = list(faults.disturbed(launch, folder / "run", kills(whole)))
    return whole, remains, faults.compare_runs(whole.folder, folder / "run")


def test_killed_run_ends_like_the_undisturbed_one(
    faults: Any, nursery: Nursery, tmp_path: Path
) -> None:
    def kills(whole: Any) -> list[Any]:
        assert whole.rows == 24
        return [
            faults.Kill("moment", 1, 0.0),
            # Behind the rows of the epochs 1 and 2: the next file is one within an epoch.
            faults.Kill("save", 8, 0.0),
            faults.Kill("replaced", 12, 0.0),
            faults.Kill("moment", 24, 0.0),
        ]

    whole, remains, different = killed(faults, nursery, tmp_path, "channel", kills)
    assert different == []
    assert [one.when for one in remains] == ["moment", "save", "replaced", "moment"]
    # Nothing was saved yet at the first; the second found a file half written.
    assert [one.nothing for one in remains] == [True, False, False, False]
    assert remains[1].saving
    assert [one.torn for one in remains] == [[]] * 4
    assert remains[3].rows == whole.rows
    # What was compared is all there, of a model that was cut.
    names = {"best", "best_pruned", "dense", "last", "often"}
    assert {path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt")} == names
    report = json.loads((tmp_path / "run" / "pruning_report.json").read_text())
    assert report["pruned"]["parameters"] < report["dense"]["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_survives(faults: Any, nursery: Nursery, tmp_path: Path, recipe: str) -> None:
    plan = functools.partial(faults.plan_kills, 12, 1)
    _, remains, different = killed(faults, nursery, tmp_path, recipe, plan)
    assert different == []
    assert faults.summary(remains)["torn"] == 0
    assert len(remains) == 12
    assert any(one.saving for one in remains)


@pytest.mark.slow
def test_harness_finds_what_a_resume_forgets(faults: Any, nursery: Nursery, tmp_path: Path) -> None:
    """Without random states the dropout of the resumed run is another one."""
    kills = [faults.Kill("moment", 12, 0.0)]
    _, remains, different = killed(
        faults, nursery, tmp_path, "channel", lambda _: kills, "ExactResume"
    )
    assert len(remains) == 1
    assert any("/state_dict/net.head.weight: " in line for line in different)
    assert any(line.startswith("metrics.csv") for line in different)


@pytest.mark.slow
def test_harness_finds_torn_files(faults: Any, nursery: Nursery, tmp_path: Path) -> None:
    """Lightning writes over the old file, so a kill in a save leaves it torn."""
    launch = functools.partial(nursery.start, recipe="channel", without="AtomicCheckpointIO")
    torn = [f"{tmp_path}/run/checkpoints/last.ckpt"]
    whole = faults.undisturbed(launch, tmp_path / "run")
    shutil.copytree(whole.folder, tmp_path / "run")
    path = Path(torn[0])
    path.write_bytes(path.read_bytes()[:-100])
    found = faults.look(tmp_path / "run", "save", set())
    assert [line.split(":")[0] for line in found.torn] == torn
    assert not found.nothing  # the other files are intact


# --- the comparison -----------------------------------------------------------------------------


def one_run(folder: Path, **changes: Any) -> Path:
    """Write what a run is known by."""
    content = {
        "state_dict": {"w": torch.tensor([1.0, float("nan")])},
        "callbacks": {"ModelCheckpoint": {"best": "best.ckpt"}},
        "epoch": 3,
        "global_step": 4,
    }
    io = AtomicCheckpointIO(refuse_non_finite=False)
    io.save_checkpoint(content | changes, folder / "checkpoints" / "last.ckpt")
    (folder / "metrics.csv").write_text("step,loss\n0,1.0\n1,0.5\n")
    (folder / "config.yaml").write_text(f"seed: 0\nresume: {changes.get('resume')}\n")
    (folder / "result.json").write_text('{"value": 0.5}')
    return folder


def test_equal_runs_do_not_differ(faults: Any, tmp_path: Path) -> None:
    ours, theirs = one_run(tmp_path / "a"), one_run(tmp_path / "b")
    (theirs / "config.yaml").write_text("seed: 0\nresume: /runs/1\nckpt_path: last.ckpt\n")
    (theirs / "metrics.before_resume.csv").write_text("step\n")
    (theirs / "earlier_1").mkdir()
    (theirs / "earlier_1" / "metrics.csv").write_text("step\n")
    assert faults.compare_runs(ours, theirs) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"state_dict": {"w": torch.tensor([1.0 + 2**-23, float("nan")])}},
            "checkpoints/last.ckpt/state_dict/w: 1 of 2 values, at most nan apart",
        ),
        (
            {"state_dict": {"w": torch.tensor([1.0])}},
            "checkpoints/last.ckpt/state_dict/w: torch.float32 [2] and torch.float32 [1]",
        ),
        (
            {"callbacks": {"ModelCheckpoint": {"best": "last.ckpt"}}},
            "checkpoints/last.ckpt/callbacks/ModelCheckpoint/best: 'best.ckpt' and 'last.ckpt'",
        ),
        ({"epoch": 2}, "checkpoints/last.ckpt/epoch: 3 and 2"),
        ({"epoch": 3.0}, "checkpoints/last.ckpt/epoch: int and float"),
        ({"extra": 1}, "checkpoints/last.ckpt/extra: in one of them only"),
    ],
)
def test_one_changed_bit_of_a_checkpoint_is_found(
    faults: Any, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    ours, theirs = one_run(tmp_path / "a"), one_run(tmp_path / "b", **changes)
    assert faults.compare_runs(ours, theirs) == [line]


def test_numbers_are_compared_bit_by_bit(faults: Any) -> None:
    zeros = torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])
    assert [*faults.differences(*zeros, "x")] == ["x: 1 of 2 values, at most 0.0 apart"]
    assert [*faults.differences([1, 2.0], [1, -2.0], "x")] == ["x/1: 2.0 and -2.0"]
    assert [*faults.differences(0.0, -0.0, "x")] == ["x: 0.0 and -0.0"]
    nan = float("nan")
    assert not [*faults.differences([nan, torch.tensor(nan)], [nan, torch.tensor(nan)])]


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("metrics.csv", "step,loss\n0,1.0\n", ["metrics.csv: 3 and 2 entries"]),
        ("metrics.csv", "step,loss\n0,1.0\n1,.5\n", ["metrics.csv/2/1: '0.5' and '.5'"]),
        ("result.json", '{"value": 0.25}', ["result.json/value: 0.5 and 0.25"]),
        ("config.yaml", "seed: 1", ["config.yaml/seed: 0 and 1"]),
        ("checkpoints/x.ckpt.part", "", ["checkpoints/x.ckpt.part: only in b"]),
    ],
)
def test_changed_files_are_found(
    faults: Any, tmp_path: Path, name: str, text: str, lines: list[str]
) -> None:
    ours, theirs = one_run(tmp_path / "a"), one_run(tmp_path / "b")
    (theirs / name).write_text(text)
    assert faults.compare_runs(ours, theirs) == lines


def test_kills_are_spread_over_the_run(faults: Any) -> None:
    whole = faults.Undisturbed(Path("x"), rows=40, startup=6.0, seconds=26.0)
    kills = faults.plan_kills(20, 0, whole)
    assert kills == faults.plan_kills(20, 0, whole)
    assert kills != faults.plan_kills(20, 1, whole)
    assert len(kills) == 20
    rows = [kill.rows for kill in kills]
    assert rows == sorted(rows)
    assert all(2 * i <= place < 2 * i + 2 for i, place in enumerate(rows[:-1]))
    assert (kills[-1].when, rows[-1]) == ("moment", 40)
    assert sum(kill.when == "save" for kill in kills) >= 5
    # No checkpoint is written behind the last rows: who waits for one there waits in vain.
    assert all(kill.rows <= 35 for kill in kills if kill.when in ("save", "replaced"))
    assert all(kill.delay < 2 for kill in kills if kill.when == "moment")
