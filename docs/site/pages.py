"""Write the pages of the documentation site: `python docs/site/pages.py build/site`.

Those of docs/ with links that lead to pages of the site, README and what else is beside docs/, the
examples, and a page of the API for each room. The folder can then be built by MkDocs, or by any
other generator that reads its settings.
"""

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from formulas import with_formulas

ROOT = Path(__file__).resolve().parents[2]
BESIDE = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
ROOMS = {
    "front": "Train, prune, load",
    "recipes": "Recipes",
    "callbacks": "Callbacks",
    "policies": "Criteria, penalties, widths",
    "functional": "Functions on tensors",
    "surgery": "Masks and cuts",
    "graph": "Groups and costs",
    "detection": "Detection",
    "neural": "Neural responses",
    "vision": "Classifiers and segmentation",
    "runs": "Durable runs",
}
# Rooms of few names -> the page that has them.
JOINED = {"observe": "surgery", "files": "runs", "data": "detection"}
FRONT = ("prune", "PrunedRun", "load_pruned", "compress", "Compressed", "check_prunable", "Pruning")


def main(folder: str) -> None:
    """Write pages and settings to a folder, which is emptied first."""
    target = Path(folder)
    shutil.rmtree(target, ignore_errors=True)
    for name, text in pages().items():
        (target / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        (target / "pages" / name).write_text(text, "utf-8")
    (target / "mkdocs.yml").write_text(yaml.safe_dump(settings(), sort_keys=False), "utf-8")
    shutil.copytree(ROOT / "docs/images", target / "pages/images")
    shutil.copy(ROOT / "docs/site/formulas.py", target)
    shutil.copy(ROOT / "docs/site/docstrings.py", target)


def pages() -> dict[str, str]:
    """Return name -> text of every page."""
    docs = ROOT / "docs"
    found = {path.relative_to(docs).as_posix(): path for path in docs.rglob("*.md")}
    texts = {name: path.read_text("utf-8") for name, path in sorted(found.items())}
    texts |= {page: (ROOT / name).read_text("utf-8") for name, page in BESIDE.items()}
    texts = {name: _as_page(name, text) for name, text in texts.items()}
    return texts | api_pages() | example_pages()


def settings() -> dict[str, Any]:
    """Return the settings, with the pages that the navigation does not name under Guides."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text("utf-8"))
    made |= {"docs_dir": "pages", "site_dir": str(ROOT / "build/docs")}
    (options,) = (plugin for plugin in made["plugins"] if isinstance(plugin, dict))
    options["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    sections = {title: part for entry in made["nav"] for title, part in entry.items()}
    api = [f"api/{room}.md" for room in ROOMS]
    sections["Reference"][:0] = [{"API": ["api/index.md", *api]}]
    examples = [name for name in example_pages() if name != "examples/index.md"]
    sections["Guides"].append({"Examples": ["examples/index.md", *examples]})
    names = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    sections["Guides"].extend(sorted(names - set(_named(made["nav"]))))
    return made


def api_pages() -> dict[str, str]:
    """Return name -> text of the API pages: every public name in the room of its file."""
    homes = _homes()
    directives: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name, home in sorted(homes.items(), key=lambda item: item[0].lower()):
        room = home.split(".")[0]
        room = "front" if name in FRONT else JOINED.get(room, room)
        directives[room if room in ROOMS else "front"].append(f"lightning_prune.{home}.{name}")
    directives["functional"] = sorted(_functions())
    directives["recipes"] = [f"lightning_prune.recipes.{name}" for name in _recipes()]
    texts = {
        f"api/{room}.md": f"# {ROOMS[room]}\n" + "".join(f"\n::: {name}\n" for name in names)
        for room, names in directives.items()
    }
    texts["api/index.md"] = (
        "# API\n\nEvery [public name](../names.md), from its docstring. All are imported from "
        "`lightning_prune`, functions on tensors from `lightning_prune.functional`.\n\n"
    ) + "".join(f"- [{title}]({room}.md)\n" for room, title in ROOMS.items())
    return texts


def example_pages() -> dict[str, str]:
    """Return name -> text of a page for each program of examples/, and of their list."""
    found = sorted((ROOT / "examples").glob("*.py"))
    rows = "".join(f"- [{path.name}]({path.stem}.md): {_sentence(path)}\n" for path in found)
    programs = {
        f"examples/{path.stem}.md": f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
        for path in found
    }
    books = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
    }
    notebooks = {f"examples/{name}.md": _notebook(book) for name, book in books.items()}
    rows += "".join(
        f"- [{name}.ipynb]({name}.md): a notebook, with its outputs\n" for name in books
    )
    return {"examples/index.md": f"# Examples\n\n{rows}"} | programs | notebooks


def _notebook(book: dict[str, Any]) -> str:
    """Return the cells of a notebook, and what they put out, as one page."""
    parts = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../../docs/", "](../"))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            shown = output.get("data", {})
            text = "".join(output.get("text", shown.get("text/plain", "")))
            if "image/png" in shown:
                image = "".join(shown["image/png"]).replace("\n", "")
                parts.append(f"![what the cell shows](data:image/png;base64,{image})")
            elif text:
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _as_page(name: str, text: str) -> str:
    """Let links lead to pages of the site, and write lists and formulas as Markdown has them."""
    up = "../" * name.count("/")
    if name in BESIDE.values():
        text = re.sub(r"\]\(docs/", "](", text)
        text = re.sub(r"\]\(examples/", "](../examples/", text)
    for beside, page in BESIDE.items():
        text = re.sub(rf"\]\((\.\./)*{beside}", f"]({up}{page}", text)
    source = r"(?:notebooks/)?(\w+)\.(?:py|ipynb)"
    text = re.sub(rf"\]\((?:\.\./)+examples/{source}\)", rf"]({up}examples/\1.md)", text)
    text = re.sub(r"\]\((?:\.\./)+examples/\)", f"]({up}examples/index.md)", text)
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    for index in range(0, len(parts), 2):  # those between blocks of code
        parts[index] = with_formulas(re.sub(r"^  - ", "    - ", parts[index], flags=re.M))
    return "".join(parts)


def _homes() -> dict[str, str]:
    tree = ast.parse((ROOT / "lightning_prune/__init__.py").read_text("utf-8"))
    (homes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES"
    )
    return dict(homes)


def _functions() -> list[str]:
    tree = ast.parse((ROOT / "lightning_prune/functional/__init__.py").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [f"{node.module}.{alias.name}" for node in imports for alias in node.names]


def _recipes() -> list[str]:
    tree = ast.parse((ROOT / "lightning_prune/recipes.py").read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _sentence(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in _named(part)]


if __name__ == "__main__":
    main(*sys.argv[1:])
