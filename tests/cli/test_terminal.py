"""What is printed goes around bars, and into the log as a person saw it."""

import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tqdm import tqdm

from lightning_prune.cli.terminal import open_terminal, shows_bars

ROOT = Path(__file__).resolve().parents[2]


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


def watched(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Put a screen in the place of both streams; pytest changes them between the phases."""
    screen = Screen()
    for name in ("CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def seen(text: str) -> list[str]:
    """Return the lines as they stand on a terminal: what a carriage return wiped is gone."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_message_does_not_tear_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    screen = watched(monkeypatch)
    log = tmp_path / "train.log"
    with open_terminal(log):
        print("before")
        for number in tqdm(range(3), "bar", mininterval=0, ncols=40, leave=False):
            print("half", end=" ")
            print("message", number)
        print("\x1b[1mbold\x1b[0m", file=sys.stderr)
    lines = seen(screen.getvalue())
    assert [line for line in lines if "message" in line] == [f"half message {n}" for n in range(3)]
    assert "bar:" in screen.getvalue()
    assert log.read_text().splitlines() == [
        "before", "half message 0", "half message 1", "half message 2", "bold",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value", "bars"),
    [("TERM", "dumb", False), ("CI", "true", False), ("CI", "false", True), ("TERM", "a", True)],
)
def test_bars_need_somebody_who_looks(
    variable: str, value: str, bars: bool, monkeypatch: pytest.MonkeyPatch
):
    screen = watched(monkeypatch)
    monkeypatch.setenv(variable, value)
    assert shows_bars() is bars
    with open_terminal():
        assert list(tqdm(range(2), mininterval=0)) == [0, 1]
    assert bool(screen.getvalue()) is bars


def test_warnings_and_loggers_are_lines_of_the_log(tmp_path: Path):
    log = tmp_path / "train.log"
    done = run(
        "import logging\n"
        f"with open_terminal(Path({str(log)!r})):\n"
        "    warnings.warn('few objects')\n"
        "    warnings.simplefilter('always')\n"
        "    warnings.warn('old', DeprecationWarning)\n"
        "    logging.getLogger('lightning.pytorch').warning('devices')\n"
    )
    lines = log.read_text().splitlines()
    assert lines[0] == "warning: few objects"
    assert lines[1].startswith("warning: DeprecationWarning of ")
    assert lines[2:] == ["devices"]
    assert done.stderr.splitlines() == lines


def test_a_log_of_hydra_does_not_say_it_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    screen = watched(monkeypatch)
    root, log = logging.getLogger(), tmp_path / "train.log"
    console, file = logging.StreamHandler(screen), logging.FileHandler(log)
    before = list(root.handlers)
    root.handlers[:] = [console, file]
    try:
        with open_terminal(log):
            root.error("job failed")
            print("printed")
        assert console.stream is screen
    finally:
        root.handlers[:] = before
        file.close()
    assert log.read_text().splitlines() == ["job failed", "printed"]
    assert screen.getvalue().splitlines() == ["job failed", "printed"]


def test_streams_are_what_they_were_afterwards(tmp_path: Path):
    def fail() -> None:
        with open_terminal(tmp_path / "no" / "folder.log"):
            assert sys.stdout is not before[0]
            raise ValueError("end")

    before = sys.stdout, sys.stderr, warnings.formatwarning, tqdm.__init__
    with pytest.raises(ValueError, match="end"):
        fail()
    assert before == (sys.stdout, sys.stderr, warnings.formatwarning, tqdm.__init__)


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", f"from lightning_prune.cli.terminal import *\n{code}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path: Path):
    log = tmp_path / "train.log"
    code = (
        f"with open_terminal(Path({str(log)!r})):\n"
        "    for number in range(20000):\n        print('line', number)\n"
        "print('gone', file=sys.stderr)"
    )
    program = f'{sys.executable} -c "$CODE" | head -1'
    environment = {**os.environ, "CODE": f"from lightning_prune.cli.terminal import *\n{code}"}
    done = subprocess.run(
        ["bash", "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "line 0\n"
    assert done.stderr == "gone\n"
    assert log.read_text().splitlines()[-1] == "line 19999"


def test_letters_that_a_terminal_does_not_have():
    done = run(
        "with open_terminal():\n    print('Vögel ━')",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout) == (0, "V?gel ?\n")


def test_what_lightning_advertises_or_repeats_is_left_out(tmp_path: Path):
    log = tmp_path / "train.log"
    lightning = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = lightning.level
    lightning.setLevel(logging.INFO)
    try:
        with open_terminal(log):
            for text in (
                "GPU available: False, used: False",
                "💡 Tip: buy",
                "Epoch 3: cut 8",
                "Restored all states from the checkpoint at x",
            ):
                lightning.info(text)
            lightning.warning("GPU available but not used")
        assert log.read_text() == "Epoch 3: cut 8\nGPU available but not used\n"
        assert not lightning.filters
    finally:
        lightning.setLevel(level)
