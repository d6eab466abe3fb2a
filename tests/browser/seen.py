"""What chromium and axe-core see of pages that are opened from disk."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PACKAGES = HERE.parent.parent / ".browser/node_modules"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
# Not where they merely are installed: `make test` shall not open browsers.
absent = pytest.mark.skipif("BROWSER" not in os.environ, reason="say `make test-browser`")


def see(pages: Sequence[Path], shots: str = "") -> list[dict[str, Any]]:
    """Return what was seen of each page, at two widths, in light and dark."""
    assert CHROMIUM, "no chromium was found: install it, or say CHROMIUM=/path/to/chromium"
    words = ["node", str(HERE / "look.js"), CHROMIUM, shots, *map(str, pages)]
    environment = os.environ | {"NODE_PATH": str(PACKAGES)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def faults(seen: dict[str, Any]) -> list[str]:
    """Return what is wrong with a page at one width, in words."""
    found = [f"asks for {url}" for url in seen["requests"]]
    found += [f"console: {text}" for text in seen["errors"]]
    if seen["overflow"] > 0:
        found.append(f"is {seen['overflow']} px wider than {seen['width']} px")
    found += [
        f"axe, {one['impact']}: {one['id']}, {one['count']} times, first {one['first']}"
        for one in seen["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    return [f"{seen['file']}, {seen['width']} px, {seen['scheme']}: {text}" for text in found]
