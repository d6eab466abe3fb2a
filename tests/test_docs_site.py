"""The documentation site: its pages, its formulas, and the check of what was built."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SITE = REPOSITORY / "docs/site"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SITE)
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def checked(folder: Path) -> tuple[int, str]:
    words = [sys.executable, str(SITE / "check.py"), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_a_site_of_local_links_is_right(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="a/b.html#here">b</a><a href="https://arxiv.org">source</a><img src="x.svg">'
    )
    (tmp_path / "a/b.html").write_text('<h2 id="here">b</h2><a href="../index.html">a</a>')
    (tmp_path / "x.svg").write_text("<svg/>")
    assert checked(tmp_path) == (
        0,
        "2 pages: all links resolve, nothing is loaded from elsewhere\n",
    )


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="b.html">b</a>', "b.html: leads nowhere"),
        ('<a href="#there">b</a>', "#there: names a place that is not there"),
        ('<script src="https://unpkg.com/x"></script>', "is loaded from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example/css">', "is loaded from elsewhere"),
        ('<img srcset="https://example.org/x.png 2x">', "is loaded from elsewhere"),
        ("<style>@import 'https://example.org/x.css'</style>", "example.org/x.css is loaded"),
        ('<p style="background: url(https://example.org/x)">', "example.org/x is loaded"),
    ],
)
def test_faults_are_found(html: str, fault: str, tmp_path: Path):
    (tmp_path / "index.html").write_text(html)
    code, out = checked(tmp_path)
    assert code == 1
    assert fault in out


def test_fonts_in_style_sheets_are_found(tmp_path: Path):
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "x.css").write_text("@font-face { src: url('https://fonts.example/x.woff2') }")
    assert checked(tmp_path)[0] == 1


def test_an_empty_folder_is_no_site(tmp_path: Path):
    assert checked(tmp_path)[0] == 1


def test_formulas_become_mathml(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("latex2mathml", reason="make docs installs it")
    with_formulas = load("formulas", monkeypatch).with_formulas
    out = with_formulas("$$a_b * 2$$\n\nand $`x`$ and :math:`y`\n\n.. math:: z\n    + 1\n\ntext")
    assert out.count("<math") == 4
    assert "$" not in out
    assert "math::" not in out
    assert "_" not in out, "Markdown would read it as emphasis"


def test_every_page_has_a_place_and_every_place_a_page(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("latex2mathml", reason="make docs installs it")
    load("formulas", monkeypatch)
    pages = load("pages", monkeypatch)
    named = pages._named(pages.settings()["nav"])
    assert sorted(named) == sorted(set(named)), "each once"
    assert set(named) == set(pages.pages())


def test_the_navigation_names_pages_that_are_there():
    text = (SITE / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"([\w/]+\.md)$", text, re.MULTILINE)
    beside = {"readme.md", "changelog.md", "contributing.md"}
    assert len(named) > 40
    assert not [n for n in named if n not in beside and not (REPOSITORY / "docs" / n).is_file()]
    assert yaml.safe_load(text)["theme"]["font"] is False


def test_every_recipe_has_a_card():
    recipes = {path.stem for path in (REPOSITORY / "conf/pruning").glob("*.yaml")}
    cards = {path.stem for path in (REPOSITORY / "docs/methods").glob("*.md")}
    assert recipes <= cards
    index = (REPOSITORY / "docs/methods/index.md").read_text(encoding="utf-8")
    assert not [card for card in cards - {"index"} if f"({card}.md)" not in index]


def test_make_quick_runs_the_experiment_of_the_page():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    page = (REPOSITORY / "docs/start.md").read_text(encoding="utf-8")
    assert "train.py experiment=quick" in makefile
    assert "train.py experiment=quick" in page
    quick = yaml.safe_load((REPOSITORY / "conf/experiment/quick.yaml").read_text())
    assert f"for {quick['dense_epochs']} epochs on {quick['data']['train_images']} canvases" in page
    assert f"until epoch {quick['dense_epochs'] + quick['recovery_epochs']}" in page
