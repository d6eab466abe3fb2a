"""The page of the contract shows every recipe and every promise of the suite, and all are kept."""

import re
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.contract.registry import RECIPES

PAGE = REPOSITORY / "docs" / "contract.md"


def test_the_page_is_complete_and_all_promises_are_kept() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ")
    ]
    heads = [row for row in rows if row[0] == "promise"]
    assert heads
    assert all(row == ["promise", *RECIPES] for row in heads)
    promises = {row[0]: row[1:] for row in rows if row[0] != "promise"}
    assert all(set(cells) <= {"yes", "-"} for cells in promises.values())
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r'mark\.contract\(\s*["\'](.+?)["\'],?\s*\)', source)
    assert len(named) >= 12
    assert set(named) <= promises.keys()
