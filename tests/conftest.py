"""Fixtures shared by the whole suite."""

from pathlib import Path

import pytest

from tests.golden_vectors import GoldenVectors, shared_folder

REPOSITORY = Path(__file__).resolve().parent.parent


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
