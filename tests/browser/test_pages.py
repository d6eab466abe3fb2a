"""The pages in a browser: `make test-browser`, or `make test-browser PAGES="a.html b.html"`."""

import json
import os
from pathlib import Path

from lightning_prune.report.page.comparison import compare
from lightning_prune.report.page.comparison_page import write_comparison, write_sweep_page
from lightning_prune.report.page.run_page import write_page
from tests.browser.seen import absent, faults, see
from tests.report.page.runs import write_run

pytestmark = absent

FAULTY = """<!DOCTYPE html><html lang="en"><head><title>x</title></head><body><main><h1>x</h1>
<img src="https://example.org/x.png" style="width: 800px; height: 9px">
<p style="color: #ccc; background: #fff">pale</p><script>missing()</script></main></body></html>"""


def made(folder: Path) -> list[Path]:
    """Return a report of many layers, a sweep of nine and a comparison of twenty runs."""
    runs = [folder / "sweep" / str(number) for number in range(20)]
    for number, run in enumerate(runs):
        run.mkdir(parents=True)
        write_run(run, 2)
        command = {"task": ["+pruning=channel", f"model.lr={number}", f"seed={number % 3}"]}
        (run / "command.json").write_text(json.dumps(command))
    many = folder / "run"
    many.mkdir()
    write_run(many, 40, [f"a class of a longer name {number}" for number in range(30)])
    sweep = write_sweep_page(folder / "sweep", runs[:9])
    twenty = compare(runs, folder)
    return [
        write_page(many),
        sweep,
        write_comparison(folder / "compare.html", twenty, "Comparison"),
    ]


def test_every_fault_is_found(tmp_path: Path):
    (tmp_path / "faulty.html").write_text(FAULTY)
    found = [faults(one) for one in see([tmp_path / "faulty.html"])]
    assert len(found) == 4
    for one in found:
        text = "\n".join(one)
        assert "asks for https://example.org/x.png" in text
        assert "missing is not defined" in text
        assert "axe, serious: color-contrast, 1 times" in text
        assert "axe, critical: image-alt, 1 times" in text
        assert ("px wider than 390 px" in text) == ("390 px" in text.split(": ")[0])


def test_pages_need_nothing_and_fit(tmp_path: Path):
    given = [Path(word) for word in os.environ.get("PAGES", "").split()]
    pages = given or made(tmp_path)
    seen = see(pages, os.environ.get("SHOTS", ""))
    assert len(seen) == 4 * len(pages)
    found = [text for one in seen for text in faults(one)]
    assert not found, "\n".join(found)
