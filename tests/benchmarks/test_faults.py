import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_run_finds_no_difference(tmp_path: Path) -> None:
    output = tmp_path / "faults.json"
    command = [sys.executable, "benchmarks/faults.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(output.read_text())
    (row,) = result["rows"]
    assert (row["recipe"], row["kills"], row["differences"], row["torn"]) == ("magnitude", 2, [], 0)
    first, last = row["remains"]
    assert first["saving"]
    assert first["rows"] < last["rows"] == row["rows"]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    sys.modules.pop("faults", None)
    import faults

    return faults


def test_command_goes_on_where_a_run_has_begun(
    faults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def popen(command: list[str], **options: Any) -> None:
        started.append((command[2:], options["env"]))

    monkeypatch.setattr(subprocess, "Popen", popen)
    folder, log = tmp_path / "run", tmp_path / "output.log"
    launch = faults.TrainingCommand(["+pruning=channel", "seed=1"], log)
    launch(folder)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    launch(folder)
    words = [["+pruning=channel", "seed=1", f"hydra.run.dir={folder}"], [f"resume={folder}"]]
    assert [command for command, _ in started] == words
    # Whatever depends on them is the same in all processes.
    assert all(
        (environment["OMP_NUM_THREADS"], environment["PYTHONHASHSEED"]) == ("1", "0")
        for _, environment in started
    )
    assert log.read_text().splitlines() == ["> " + " ".join(line) for line in words]


def test_every_recipe_of_the_configuration_is_there(faults: Any) -> None:
    folder = REPOSITORY / "conf" / "pruning"
    assert set(faults.RECIPES) == {path.stem for path in folder.glob("*.yaml")}
