"""Fixtures shared by the whole suite."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden_vectors import GoldenVectors, shared_folder

REPOSITORY = Path(__file__).resolve().parent.parent
# `make test &` and nohup start processes that ignore these, and what they start ignores them too.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large vectors and real data; skips where the project stands alone."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("shared data absent: set LIGHTNING_PRUNE_SHARED or put ../shared there")
    return folder


@pytest.fixture(scope="session")
def golden_vectors() -> GoldenVectors:
    """Recorded inputs and outputs of public references, by file name."""
    return GoldenVectors()


@pytest.fixture(scope="session", autouse=True)
def no_flushing() -> Iterator[None]:
    """Do not wait for the disk: without it files outlive their process, only not a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        # What is no open file is still an error.
        patch.setattr(os, "fsync", lambda file: os.fstat(file) and None)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A place for the key by which runs know their own folders, away from the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def no_log_outlives_its_folder() -> Iterator[None]:
    """Remove the log files that Hydra has given the root logger: their folders are deleted."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler) and handler not in before:
            root.removeHandler(handler)
            handler.close()


# Long files of few tests: begun last, one of them would keep one worker busy when all else is done.
LONG = (
    "tests/cli/test_train_digits.py",
    "tests/runs/sweep/test_sweep_callback.py",
    "tests/callbacks/test_distributed.py",
    "tests/runs/test_stop_on_signal.py",
    "tests/contract/test_resume.py",
    "tests/contract/test_processes.py",
    "tests/export/",
    "tests/test_readme.py",
    "tests/cli/test_export.py",
    "tests/test_examples.py",
    "tests/faults/",
    "tests/runs/resume/",
    "tests/callbacks/",
    "tests/conf/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long files begin first (with `--no-loadscope-reorder`, which the Makefile gives)."""

    def rank(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG))

    items.sort(key=rank)
