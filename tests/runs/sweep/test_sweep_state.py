"""Which sweep a command takes up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_prune.errors import ConfigError
from lightning_prune.runs.sweep.sweep_state import STATE, SweepState, find_sweep, plain_words


@pytest.fixture(autouse=True)
def now():
    made = not OmegaConf.has_resolver("now")
    if made:
        OmegaConf.register_new_resolver("now", lambda form: "t" + form[-1])
    yield
    if made:
        OmegaConf.clear_resolver("now")


def config(folder: str, *words: str) -> Any:
    overrides = {"task": list(words), "hydra": ["hydra/launcher=joblib"]}
    cfg = OmegaConf.create({"hydra": {"sweep": {"dir": folder}, "overrides": overrides}})
    OmegaConf.set_readonly(cfg, True)
    return cfg


def sweep(folder: Path, name: str, words: list[str], written: float, **options: Any) -> Path:
    SweepState(name, words, options.get("finished", False), written).write(folder)
    return folder


def test_the_newest_of_the_same_command_is_taken_up(tmp_path: Path):
    root = f"{tmp_path}/a b/${{now:%d}}/${{now:%S}}"
    words = ["seed=0,1", "lr=1"]
    sweep(tmp_path / "a b/1/1", "old", words, 1.0)
    newest = sweep(tmp_path / "a b/1/2", "newest", words, 2.0)
    sweep(tmp_path / "a b/2/1", "other", ["seed=0,2", "lr=1"], 3.0)
    (tmp_path / "a b/3/1").mkdir(parents=True)
    (tmp_path / "a b/3/1" / STATE).write_text('{"of": "another version"}')
    cfg = config(root, *words)
    found = find_sweep(cfg)
    assert found is not None
    assert found.sweep == "newest"
    assert cfg.hydra.sweep.dir == str(newest)
    # The configurations of the jobs are composed with these.
    assert cfg.hydra.overrides.hydra == ["hydra/launcher=joblib", f"hydra.sweep.dir='{newest}'"]
    assert find_sweep(config(root, *words, "resume=never")) is None
    assert find_sweep(config(root, "lr=1", "seed=0,1")) is None
    # A complete one has replaced the older: what was left there is not wanted any more.
    sweep(newest, "newest", words, 4.0, finished=True)
    assert find_sweep(config(root, *words)) is None


def test_a_given_folder_is_the_sweep(tmp_path: Path):
    folder = sweep(tmp_path / "sweep", "it", ["seed=0,1"], 1.0, finished=True)
    found = find_sweep(config(str(folder), "seed=0,1", "resume=null"))
    assert found is not None
    assert found.finished
    assert find_sweep(config(str(folder), "seed=0,2")) is None
    assert find_sweep(config(str(tmp_path / "new"), "seed=0,1")) is None


def test_a_sweep_whose_job_is_alive_is_left_alone(tmp_path: Path, capsys):
    folder = sweep(tmp_path / "sweep", "it", ["seed=0,1"], 1.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    job = {"sweep": "it", "job": 0, "status": "unfinished", "host": os.uname().nodename}

    def found(**changes: Any) -> bool:
        (folder / "0").mkdir(exist_ok=True)
        (folder / "0/job.json").write_text(json.dumps(job | changes))
        return find_sweep(config(str(folder), "seed=0,1")) is not None

    assert found(process=ended.pid)
    assert found(process=os.getpid())  # numbers return, in containers at once
    assert found(process=os.getppid(), status="ok")
    assert found(process=os.getppid(), sweep="another")
    assert found(process=os.getppid(), host="elsewhere")
    assert "job 0 was begun on elsewhere: make sure" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=rf"still runs, in process {os.getppid()}"):
        found(process=os.getppid())


def test_resume_is_no_part_of_a_command():
    assert plain_words(["a=1", "resume=never", "b=2"]) == ["a=1", "b=2"]
