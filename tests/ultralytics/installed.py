"""Runs scripts with a version of `ultralytics` that `make test-ultralytics` installed beside us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / ".ultralytics"
VERSIONS = ("8.2.103", "8.4.0", "8.4.190")
"""The last of 8.2; 8.4.0, whose SPPF lacks an activation; the last of 8.4."""
NEWEST = VERSIONS[-1]


def is_installed(version: str) -> bool:
    return (FOLDER / version / "ultralytics").is_dir() and (FOLDER / "helpers").is_dir()


absent = pytest.mark.skipif(
    not all(map(is_installed, VERSIONS)), reason="needs .ultralytics/: say `make test-ultralytics`"
)


def run_script(version: str, name: str, *arguments: object, folder: Path) -> str:
    """Run a script of this folder with one version of their package; return what it printed."""
    paths = [FOLDER / version, FOLDER / "helpers"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "MPLBACKEND": "Agg",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
