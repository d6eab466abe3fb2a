"""Runs that are killed (SIGKILL) within an epoch end as those that were not, bit by bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.resume.killed_run import ASKED, SCENARIOS

ROOT = Path(__file__).parents[3]
QUICK = ("half epochs",)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SCENARIOS]
)
def test_a_killed_run_ends_as_the_whole_one(name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.runs.resume.killed_run", str(tmp_path), name]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ended = 143 if name == ASKED else -9
    assert found == {f"{hook} {call}": [ended, 0, []] for hook, call in SCENARIOS[name][1]}
