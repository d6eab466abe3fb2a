"""Strange command lines start or are refused: no crash, no hang, no traceback."""

import contextlib
import io
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from lightning_prune.cli.train import main
from tests.conf.compositions import YAML, Composition, composition
from tests.conf.outcomes import UNCLEAR, Started, stopped
from tests.overrides import TINY

PATIENCE = 120  # seconds after which it hangs, on a machine that others share
QUIET = ["callbacks.progress=null", "logger=none"]


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError(f"no end after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end_of(words: list[str]) -> tuple[int | None, str]:
    """Return exit code and errors of a command line; None: it came to its first batch."""
    errors = io.StringIO()
    root = logging.getLogger()
    handlers, code = list(root.handlers), 0
    try:
        with alarm(), contextlib.redirect_stderr(errors), stopped([]):
            main(words)
    except Started:
        return None, errors.getvalue()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        root.handlers[:] = handlers
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    return code, errors.getvalue()


def judge(given: Composition, folder: Path) -> None:
    words = given.write(folder)
    small = [] if any(word.startswith("--") for word in words[-1:]) else [*TINY, *QUIET]
    code, errors = end_of([*small, *words])
    if code is None:
        return
    # Hydra repeats the words that were given, and we say how to see more.
    own = ("(HYDRA_FULL", "Error executing job with overrides: ")
    told = [line for line in errors.splitlines() if line and not line.startswith(own)]
    assert code == 2, (words, code, errors)
    assert told, words
    assert len(told) < 10, (words, errors)
    assert max(map(len, told)) < 3000, words
    assert not [text for text in UNCLEAR if text in errors], (words, errors)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["bomb", "itself", "deep", "tag"])
def test_hostile_yaml_is_refused_with_the_name_of_the_file(name: str, tmp_path: Path):
    words = ["--config-dir", "{folder}", f"+mine={name}"]
    given = Composition(words, {f"mine/{name}.yaml": YAML[name]})
    code, errors = end_of(given.write(tmp_path))
    assert code == 2
    assert f"mine/{name}.yaml: " in errors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1000, 1008))
def test_a_strange_command_line_starts_or_is_refused(seed: int, tmp_path: Path):
    judge(composition(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(500))
def test_many_strange_command_lines(seed: int, tmp_path: Path):
    judge(composition(seed), tmp_path)
