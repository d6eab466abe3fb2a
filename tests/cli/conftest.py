"""Call the command line inside the test process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from lightning_prune.cli.train import main

CONF = Path(__file__).parent / "conf"
# The model and the data of tests/cli/fakes.py, and nothing that prints or writes.
FAKE = ["--config-dir", str(CONF), "model=line", "data=points", "callbacks.ema=null"]


class Outcome(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """A function that runs the command line with some arguments in an empty folder."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        code = 0
        try:
            main([*arguments, f"hydra.run.dir={folder}"])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        out, err = capfd.readouterr()
        return Outcome(code, out, err, folder)

    return call


@pytest.fixture
def again(
    cli: Callable[..., Outcome],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Outcome]:
    """Call the command line without a folder of its own."""

    def call(*arguments: str) -> Outcome:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        code = 0
        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            sys.argv = ["train.py"]
        return Outcome(code, *capfd.readouterr(), Path())

    return call
