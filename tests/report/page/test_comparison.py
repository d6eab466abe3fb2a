import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from lightning_prune.errors import ConfigError
from lightning_prune.report.page.comparison import Row, compare, mark_front, run_folders
from lightning_prune.report.page.comparison_page import (
    charts,
    write_comparison,
    write_sweep_page,
)
from lightning_prune.report.page.stored_run import read_run
from lightning_prune.report.page.verdict import main_metric, verdict
from lightning_prune.report.report_data import CutFacts, ModelFacts, ReportData, write_report
from tests.report.page.runs import Page
from tests.report.reports import row


def write(folder: Path, metric: float, macs: int, ms: float, **settings: str) -> None:
    dense = ModelFacts(1000, 100, {"test/map": 0.5}, 10.0)
    pruned = ModelFacts(500, macs, {"test/map": metric}, ms)
    write_report(folder, ReportData(dense=dense, pruned=pruned, layers=[row("net.a")],
                                    cut=CutFacts(1, 2, None, [])))  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    (folder / "command.json").write_text(json.dumps({"task": ["+pruning=channel", *words]}))
    result = {"monitor": "val/map", "value": metric - 0.01, "metrics": {"test/map": metric}}
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    values = [(0.4, 60, 8.0), (0.3, 40, 9.0), (0.35, 60, 7.0), (0.45, 80, 9.5)]
    for number, (metric, macs, ms) in enumerate(values):
        write(tmp_path / str(number), metric, macs, ms, **{"data.lr": str(number), "seed": "0"})
    return tmp_path


def test_rows_hold_what_is_stored_and_settings_that_differ(sweep):
    found = compare(run_folders([sweep]), sweep)
    assert found.metric == "test/map"
    assert not found.lower
    assert [one.name for one in found.rows] == ["0", "1", "2", "3"]
    assert found.keys == ["data.lr"]
    assert found.short_keys == {"data.lr": "lr"}
    assert [one.macs_fraction for one in found.rows] == [0.6, 0.4, 0.6, 0.8]
    assert [one.front for one in found.rows] == [True, True, False, True]
    assert [one.fast_front for one in found.rows] == [True, False, True, True]


@pytest.mark.parametrize("lower", [False, True])
def test_the_front_is_what_nothing_beats(lower):
    draw = np.random.default_rng(0)
    points = draw.integers(0, 6, (60, 2)) / 5
    rows = [Row(str(n), None, metric=q, macs_fraction=p) for n, (p, q) in enumerate(points)]
    mark_front(rows, lower)
    for one, (p, q) in zip(rows, points, strict=True):
        better = points[:, 1] < q if lower else points[:, 1] > q
        same = points[:, 1] == q
        beaten = (better & (points[:, 0] <= p)) | (same & (points[:, 0] < p))
        assert one.front == (not beaten.any())


def test_every_point_of_the_page_is_where_its_run_is(sweep):
    found = compare(run_folders([sweep]), sweep)
    text = write_comparison(sweep / "compare.html", found, "Comparison").read_text()
    page = Page(text)
    assert page.json("comparison") == json.loads(json.dumps(found.to_plain()))
    charts = re.findall(r'<svg class="chart"(.*?)</svg>', text, re.DOTALL)
    kinds = (("macs_fraction", "front"), ("latency_ms", "fast_front"))
    for chart, (cost, front) in zip(charts, kinds, strict=True):
        rows = sorted(found.rows, key=lambda one: getattr(one, front))  # the front is on top
        x0, x1, y0, y1 = map(float, re.search(r'data-domain="([^"]*)"', chart)[1].split())
        left, right, bottom, top = map(float, re.search(r'data-plane="([^"]*)"', chart)[1].split())
        circles = np.array(re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart), float)
        costs = x0 + (circles[:, 0] - left) / (right - left) * (x1 - x0)
        metrics = y0 + (circles[:, 1] - bottom) / (top - bottom) * (y1 - y0)
        unit = 100 if cost == "macs_fraction" else 1
        assert costs == pytest.approx([getattr(one, cost) * unit for one in rows], rel=1e-3)
        assert metrics == pytest.approx([one.metric for one in rows], rel=1e-3)
    assert all(tag not in ("link", "img", "iframe") for tag, _ in page.elements)


def test_runs_at_one_place_have_their_names_in_one_text(tmp_path):
    for number, metric in enumerate([0.4, 0.4, 0.3, 0.4, 0.4, 0.4]):
        write(tmp_path / f"<{number}>", metric, 60 if metric == 0.4 else 40, 8.0)
    charts_of = charts(compare(run_folders([tmp_path]), tmp_path))
    texts = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="(\w+)">(&lt;.*?)</text>',
                       charts_of[0][1])  # fmt: skip
    assert [unescape(text) for *_, text in texts] == ["<0>, <1>, <3>, <4> and 1 more", "<2>"]
    assert [anchor for _, anchor, _ in texts] == ["end", "start"], "no border cuts them off"


def test_a_failed_job_is_on_the_page_of_its_sweep_with_its_reason(sweep):
    reason = "ValueError: <b>no</b> such layer"
    job = {"status": "failed", "reason": reason, "result": None}
    (sweep / "4").mkdir()
    (sweep / "4" / "job.json").write_text(json.dumps(job))
    folders = [sweep / str(number) for number in range(5)]
    page = Page(write_sweep_page(sweep, folders).read_text())
    assert page.json("comparison")["runs"][4]["status"] == "failed"
    assert reason in page.text
    assert page.all("b") == []
    assert (sweep / "sweep.html").stat().st_size < 60_000


def test_what_cannot_be_compared_is_refused(sweep, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ConfigError, match="holds no run"):
        run_folders([empty])
    with pytest.raises(ConfigError, match="is no folder"):
        run_folders([empty / "none"])
    with pytest.raises(ConfigError, match="is one run, and a comparison needs two"):
        run_folders([sweep / "0", sweep / "0"])


def test_the_verdict_says_no_where_it_is_no(sweep):
    run = read_run(sweep / "1")
    said = {one.question: one for one in verdict(run).answers}
    assert said["Smaller"].holds
    assert said["Faster"].holds
    assert not said["As good"].holds
    assert "0.5000 to 0.3000 (-0.2000, -40.0%)" in said["As good"].text
    assert "test/map is worse: 0.5000 dense, 0.3000 pruned" in verdict(run).sentence
    quality = main_metric(run)
    assert quality is not None
    assert quality.gain == pytest.approx(-0.2)


def test_a_time_within_noise_is_not_faster_and_masks_are_not_smaller(tmp_path):
    write(tmp_path, 0.5, 60, 9.8)
    run = read_run(tmp_path)
    assert "no difference beyond noise" in unescape(verdict(run).answers[1].text)
    assert not verdict(run).answers[1].holds
    run.report.cut = None
    assert verdict(run).sentence.startswith("Not smaller: masks are held at zero")
