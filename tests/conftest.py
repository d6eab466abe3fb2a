"""Fixtures shared by the whole suite."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """Return the folder with golden vectors and real data, or None where it is absent."""
    folder = Path(os.environ.get("LIGHTNING_PRUNE_SHARED", REPOSITORY.parent / "shared"))
    return folder.resolve() if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real data; skips where the project stands alone."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("golden vectors absent: set LIGHTNING_PRUNE_SHARED or put ../shared there")
    return folder
