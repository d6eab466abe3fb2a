import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    sys.modules.pop("same_results", None)
    import same_results

    return same_results


@pytest.fixture
def digests() -> dict[str, Any]:
    """What ``record`` writes of a run with one checkpoint."""
    tensors = {"conv.weight": "float32 [2] aa", "conv.bias": "float32 [2] bb"}
    state = {"state": {"0": {"step": 1.0}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    files = {
        "last.ckpt": {"state_dict": tensors, "optimizer_states": [state]},
        "metrics.csv": [{"step": "0", "loss": "0.5"}, {"step": "1", "loss": "0.25"}],
        "pruning_report.json": {"layers": [{"name": "conv", "knee": 3}], "seed": 0},
    }
    return {"runs": {"digits_slice": files}, "seconds": {"digits_slice": 1.0}, "made_with": {}}


def compared(same: Any, folder: Path, before: Any, after: Any, *words: str) -> int:
    """Compare two contents on the command line; return its exit code."""
    paths = [folder / "before.json", folder / "after.json"]
    for path, content in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as end:
        same.main(["compare", *map(str, paths), *words])
    return int(end.value.code or 0)


def test_equal_files_pass(same: Any, tmp_path: Path, digests: Any, capsys: Any) -> None:
    slower = digests | {"seconds": {"digits_slice": 9.0}}
    assert compared(same, tmp_path, digests, slower) == 0
    assert capsys.readouterr().out == "1 runs: everything is the same\n"


def test_a_comparison_of_some_runs_does_not_miss_the_others(
    same: Any, tmp_path: Path, digests: Any
) -> None:
    more = copy.deepcopy(digests)
    more["runs"]["plain_loop"] = {}
    assert compared(same, tmp_path, digests, more) == 1
    assert compared(same, tmp_path, digests, more, "--only", "digits_slice") == 0
    with pytest.raises(SystemExit, match="neither file has such a run"):
        same.compare(tmp_path / "before.json", tmp_path / "after.json", ["classifier"], [])


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (
            ("last.ckpt", "state_dict", "conv.bias"),
            "float32 [2] cc",
            ("last.ckpt", "state_dict", 1, "state_dict/conv.bias"),
        ),
        (
            ("last.ckpt", "optimizer_states", 0, "param_groups", 0, "lr"),
            0.2,
            ("last.ckpt", "optimizer_states/lr", 1, "optimizer_states/0/param_groups/0/lr"),
        ),
        (
            ("metrics.csv", 1, "loss"),
            "0.26",
            ("metrics.csv", "rows/loss", 1, "1/loss"),
        ),
        (
            ("pruning_report.json", "layers", 0, "knee"),
            None,
            ("pruning_report.json", "layers/knee", 1, "layers/0/knee"),
        ),
    ],
    ids=["tensor", "learning rate", "row", "report"],
)
def test_a_changed_value_is_named(
    same: Any, tmp_path: Path, digests: Any, capsys: Any, place: Any, value: Any, found: Any
) -> None:
    after = copy.deepcopy(digests)
    part = after["runs"]["digits_slice"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    (one,) = same.differences(digests["runs"], after["runs"])
    assert (one.file, one.item, one.count, one.first) == found
    assert one.after == json.dumps(value)
    assert compared(same, tmp_path, digests, after) == 1
    assert f"{one.first}: {one.before} -> {one.after}\n" in capsys.readouterr().out


def test_what_is_in_one_file_only_differs(same: Any, digests: Any) -> None:
    after = copy.deepcopy(digests)
    del after["runs"]["digits_slice"]["last.ckpt"]
    after["runs"]["digits_slice"]["metrics.csv"].append({"step": "2"})
    row, *_ = found = same.differences(digests["runs"], after["runs"])[::-1]
    assert (row.first, row.before, row.after) == ("2/step", "nothing", '"2"')
    # Two tensors, one step, one rate and one list of parameters.
    assert sum(one.count for one in found if one.file == "last.ckpt") == 5
    assert same.differences(digests["runs"], {})[0].after == "nothing"


def test_renamed_keys_are_the_same(same: Any, tmp_path: Path, digests: Any) -> None:
    after = copy.deepcopy(digests)
    files = after["runs"]["digits_slice"]
    files["metrics.csv"] = [
        {"step": row["step"], "cost": row["loss"]} for row in files["metrics.csv"]
    ]
    files["pruning_report.json"]["layers"][0] = {"name": "conv", "bend": 3}
    assert compared(same, tmp_path, digests, after, "--renamed", "loss=cost") == 1
    assert compared(same, tmp_path, digests, after, "--renamed", "loss=cost", "knee=bend") == 0


def test_digests_see_the_last_bit_and_not_the_circumstances(same: Any, tmp_path: Path) -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])

    def digest(weight: torch.Tensor, **other: Any) -> Any:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        content = {"state_dict": {"weight": weight}, "callbacks": other}
        torch.save(content, folder / "last.ckpt")
        report = {"seed": 0, "dense": {"macs": 8, "latency_ms": other}, "versions": other}
        (folder / "pruning_report.json").write_text(json.dumps(report))
        return same.digest_folder(folder)

    known = digest(weight)
    assert known["pruning_report.json"] == {"seed": 0, "dense": {"macs": 8}}
    line = known["last.ckpt"]["state_dict"]["weight"]
    assert line.startswith("float32 [2, 2] ")
    assert line.endswith(", zero rows: [1]")
    assert digest(weight, slow=3.0) == known
    larger = weight.clone()
    larger[0, 0] = larger[0, 0].nextafter(torch.tensor(2.0))
    for changed in (larger, weight * -1, weight.double(), weight.reshape(1, 4)):
        assert digest(changed) != known


def test_plain_loop_gives_the_same_digests_twice(
    same: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "channel_and_slice"
    monkeypatch.setattr(same, "LOOPS", {name: same.LOOPS[name]})
    ours, theirs = (tmp_path / run for run in ("ours", "theirs"))
    same.plain_loop(ours)
    same.plain_loop(theirs)
    found = same.digest_folder(ours)
    assert not same.differences({"plain_loop": found}, {"plain_loop": same.digest_folder(theirs)})
    records = [f"{name}/records/epoch_{epoch}.json" for epoch in range(7)]
    assert [*records, f"{name}/records/log.json", f"{name}/pruning_config.json"] == list(found)
    stem = [found[record]["state_dict"]["stem.0.weight"] for record in records]
    # Dense, masked in three steps, cut.
    assert ["zero rows" in line for line in stem[:5]] == [False, True, True, True, False]
    assert stem[0].startswith("float32 [16,")
    assert stem[4].startswith("float32 [6,")
    log = found[f"{name}/pruning_config.json"]["channel_sparsity_args"]["log_str"]
    assert log in found[f"{name}/records/log.json"]["lines"]


def test_every_recipe_of_the_configuration_is_run(same: Any) -> None:
    recipes = {path.stem for path in (REPOSITORY / "conf" / "pruning").glob("*.yaml")}
    assert {recipe for recipe in same.RECIPES if not recipe.startswith("[")} == recipes
    words = same.commands()["digits_channel_with_channel_reset"]
    assert words[0] == "+pruning=[channel,channel_reset]"
