"""Files that installed versions of `ultralytics` write, once each."""

from pathlib import Path

import pytest

from tests.ultralytics.installed import run_script

# Scripts for an interpreter that finds their package.
collect_ignore = ["write_files.py", "write_others.py", "train_and_predict.py", "say_version.py"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by version, filled when they are asked for."""
    return {}


@pytest.fixture
def files(version: str, written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that one version wrote."""
    if version not in written:
        folder = tmp_path_factory.mktemp(f"files_{version}")
        run_script(version, "write_files.py", folder, folder=folder)
        written[version] = folder
    return written[version]
