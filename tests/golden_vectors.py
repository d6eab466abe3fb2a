"""Where the recorded numbers of public references are."""

import os
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parent


def shared_folder() -> Path | None:
    """Return the folder beside the project with vectors and real data; None where it is absent."""
    folder = Path(os.environ.get("LIGHTNING_PRUNE_SHARED", _TESTS.parents[1] / "shared"))
    return folder.resolve() if folder.is_dir() else None


class GoldenVectors:
    """Golden vectors by name: the small ones are part of the tests, the large ones are shared."""

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file, and skip the test where it is nowhere."""
        own = _TESTS / "vectors" / name
        if own.is_file():
            return own
        folder = shared_folder()
        if folder is None:
            pytest.skip(f"{name} absent: set LIGHTNING_PRUNE_SHARED or put ../shared there")
        return folder / "vectors" / name
