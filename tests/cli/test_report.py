from pathlib import Path

import pytest

from lightning_prune.cli import compare, report
from tests.report.page.runs import write_run


def ended(capsys: pytest.CaptureFixture[str], main, *words: str | Path) -> str:
    with pytest.raises(SystemExit, match="2"):
        main([str(word) for word in words])
    return capsys.readouterr().err


def test_report_prints_the_tables_and_draws_the_page(tmp_path, capsys):
    write_run(tmp_path)
    report.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "backbone.stage0.conv" in printed
    assert f"the page is {tmp_path / 'report.html'}" in printed
    first = (tmp_path / "report.html").read_bytes()
    (tmp_path / "checkpoints").mkdir()
    report.main([str(tmp_path / "checkpoints"), "--quiet"])
    assert "stage0" not in capsys.readouterr().out
    assert (tmp_path / "report.html").read_bytes() == first


def test_report_refuses_what_is_no_run(tmp_path, capsys):
    assert "is no folder of a run" in ended(capsys, report.main, tmp_path / "none")
    for name in ("a", "b"):
        write_run(tmp_path / name, layers=1)
    assert "holds 2 runs: give one of them" in ended(capsys, report.main, tmp_path)
    (tmp_path / "a" / "pruning_report.json").write_text('{"version": 1}')
    said = ended(capsys, report.main, tmp_path / "a")
    assert "pruning_report.json is damaged" in said


def test_compare_prints_a_table_and_draws_a_page(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path / name, layers=1)
    compare.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Runs side by side" in printed
    assert (tmp_path / "compare.html").is_file()
    compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "x.html")])
    assert (tmp_path / "x.html").is_file()
    assert "is a folder: give a file" in ended(capsys, compare.main, tmp_path, "--output", tmp_path)
    assert "needs two" in ended(capsys, compare.main, tmp_path / "a")
