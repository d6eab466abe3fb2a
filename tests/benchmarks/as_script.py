"""Benchmarks run as scripts within the test's process: importing torch again takes seconds."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def quick_run(name: str, folder: Path) -> Any:
    """Run ``python benchmarks/NAME.py --quick`` and return what it wrote."""
    output, threads = folder / f"{name}.json", torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", "--quick", "--output", str(output)])
        patch.syspath_prepend(FOLDER)
        try:
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    return json.loads(output.read_text())
