import io

from rich.console import Console

from lightning_prune.report.norm_table import print_comparison, print_norms, verdict
from tests.report.norms import content, history


def printed(function, *arguments) -> str:
    console = Console(file=io.StringIO(), width=100)
    function(*arguments, console)
    return console.file.getvalue()


def test_rows_and_a_command_on_one_line():
    found = content(history(), wanted=0.1)
    found["command"] = "python train.py " + "word " * 60
    text = printed(print_norms, found)
    assert "60 channels in 3 groups" in text
    for row in found["epochs"]:
        line = next(line for line in text.splitlines() if row["file"] in line and "│" in line)
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells[:2] == [str(row["epoch"] + 1), f"{row['low_channels']:.1%}"]
        assert cells[3:5] == ["-", f"{row['metric']:.4f}"]
    assert found["command"].strip() in text
    assert f"Pruning can start from epoch {found['start'] + 1}" in text


def test_less_is_offered_only_where_it_helps():
    found = content(history(), wanted=0.99)
    assert "No epoch has 99% of the channels low" in verdict(found)
    best = max(row["low_channels"] for row in found["epochs"])
    assert f"(--wanted {int(100 * best) / 100:g})" in verdict(found)
    nothing = content(history(), threshold=1e-9)
    assert "--wanted" not in verdict(nothing)


def test_runs_side_by_side():
    found = content(history(), wanted=0.1)
    text = printed(print_comparison, ["0 reg=1", "1 reg=2"], [found, content(history(2))])
    drop = 1 - found["epochs"][-1]["mean_norm"] / found["epochs"][0]["mean_norm"]
    row = next(line for line in text.splitlines() if "0 reg=1" in line)
    assert f"{drop:.1%}" in row
    assert row.split("│")[-2].strip() == str(found["start"] + 1)
