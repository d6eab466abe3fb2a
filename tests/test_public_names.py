"""The names that scripts outside the project may rely on, as docs/names.md lists them."""

import ast
import importlib
import os
import re
from pathlib import Path

import pytest

import lightning_prune
import lightning_prune.moved

PAGE = Path(__file__).resolve().parent.parent / "docs" / "names.md"


def first_line(name: str) -> str:
    text = getattr(lightning_prune, name).__doc__
    return " ".join(text.strip().split("\n\n")[0].split()).replace("|", r"\|")


def table() -> str:
    names = [name for name in lightning_prune.__all__ if name != "__version__"]
    return "\n".join(f"| `{name}` | {first_line(name)} |" for name in sorted(names, key=str.lower))


def stable_paths() -> list[str]:
    text = PAGE.read_text(encoding="utf-8").partition("## Paths")[2]
    return re.findall(r"^- `([\w.]+)`", text, re.M)


def names_imported_by(script: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_prune"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("lightning_prune.")}
    return found


def test_the_page_lists_every_public_name_with_its_first_sentence():
    if os.environ.get("WRITE_NAMES"):
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition("|---|---|\n")
        PAGE.write_text(f"{head}|---|---|\n{table()}\n\n{rest[rest.index('## Paths') :]}")
    assert table() in PAGE.read_text(encoding="utf-8"), "say WRITE_NAMES=1"


@pytest.mark.parametrize("path", stable_paths())
def test_every_listed_path_leads_to_something(path: str):
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def test_what_scripts_outside_import_is_public(shared: Path):
    scripts = sorted((shared / "cases").glob("*.py"))
    assert scripts
    used = set().union(*map(names_imported_by, scripts))
    public = {f"lightning_prune.{name}" for name in lightning_prune.__all__}
    public |= {f"lightning_prune.functional.{name}" for name in lightning_prune.functional.__all__}
    earlier = {
        name
        for name in used
        if any(name.startswith(f"lightning_prune.{old}") for old in lightning_prune.moved.MOVED)
    }
    assert used - public - set(stable_paths()) - earlier == set()
