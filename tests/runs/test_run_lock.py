"""One owner for a folder of a run, whoever was killed and wherever."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.errors import ConfigError
from lightning_prune.runs import run_lock as module
from lightning_prune.runs.run_lock import LOCK, Owner, run_lock, working_owner

CHILD = """
import sys, time
from lightning_prune.runs.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A folder in which another process works."""
    folder = tmp_path_factory.mktemp("held")
    words = [sys.executable, "-c", CHILD, str(folder)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    yield folder, child
    child.kill()
    child.wait()
    child.stdout.close()


def write(folder: Path, host: str, process: int) -> Path:
    path = folder / LOCK
    content = {"host": host, "process": process, "since": 0.0, "token": "a"}
    path.write_text(json.dumps(content))
    return path


def test_a_folder_has_one_owner_until_that_is_killed(
    held: tuple[Path, subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, child = held
    place = f"process {child.pid} on {socket.gethostname()}"
    told = f"still works in it: {place}, since .*delete {folder}"
    with pytest.raises(ConfigError, match=told), run_lock(folder):
        pass
    assert working_owner(folder).process == child.pid
    with monkeypatch.context() as without_locks:
        without_locks.setattr(module, "_lock", lambda file: None)
        with pytest.raises(ConfigError, match=place), run_lock(folder):
            pass
    child.kill()
    child.wait()
    assert working_owner(folder) is None
    with run_lock(folder):
        assert f"is left over from {place}" in capsys.readouterr().out
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert not (folder / LOCK).exists()


def test_it_may_be_taken_again_in_one_process_and_is_gone_in_the_end(tmp_path: Path) -> None:
    with run_lock(tmp_path / "new"):
        with run_lock(tmp_path / "new"):
            assert working_owner(tmp_path / "new") is None
        assert (tmp_path / "new" / LOCK).is_file()
    assert os.listdir(tmp_path / "new") == []


def test_other_ranks_and_nodes_belong_to_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ranks:
        ranks.setattr(rank_zero_only, "rank", 1)
        with run_lock(tmp_path):
            assert os.listdir(tmp_path) == []
    monkeypatch.setenv("NODE_RANK", "1")
    with run_lock(tmp_path):
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("lives", [False, True])
def test_a_run_on_another_machine_lives_while_it_renews_its_lock(
    lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_BEAT", 0.5)
    path = write(tmp_path, "elsewhere", 7)
    ended = threading.Event()

    def renew() -> None:
        while lives and not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        if lives:
            with pytest.raises(ConfigError, match="process 7 on elsewhere"), run_lock(tmp_path):
                pass
        else:
            with run_lock(tmp_path):
                assert "is left over from process 7 on elsewhere" in capsys.readouterr().out
    finally:
        ended.set()
        thread.join()
    assert sorted(os.listdir(tmp_path)) == ([LOCK] if lives else [])


def test_an_old_lock_of_another_machine_needs_no_waiting(tmp_path: Path) -> None:
    path = write(tmp_path, "elsewhere", 7)
    os.utime(path, (time.time() - 3600,) * 2)
    with run_lock(tmp_path):
        assert Owner.read(path.read_text()).host == socket.gethostname()


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": "a", "more": 1}', "\udcff"])
def test_what_cannot_be_understood_belongs_to_nobody(
    text: str, locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_text(text, errors="surrogateescape")
    if not locks:
        monkeypatch.setattr(module, "_lock", lambda file: None)
    with run_lock(tmp_path):
        assert Owner.read((tmp_path / LOCK).read_text()).process == os.getpid()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = r"run\.lock cannot be written"
    with pytest.raises(ConfigError, match=told), run_lock(tmp_path / "file"):
        pass
