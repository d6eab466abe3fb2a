import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lightning_prune.errors import ConfigError
from lightning_prune.report.decision_store import write_decision
from lightning_prune.report.history import History
from lightning_prune.report.page.run_page import LIMIT, run_page, write_page
from lightning_prune.report.page.stored_run import read_run
from lightning_prune.report.page.verdict import verdict
from lightning_prune.report.report_data import ReportData, Usage, read_report, write_report
from lightning_prune.report.stored_decision import read_decision
from tests.report.page.runs import Page, metrics_csv, old_report, record, write_run
from tests.report.reports import row

HOSTILE = "</script><img src=x onerror=alert(1)>"


def page_of(folder: Path) -> Page:
    return Page(write_page(folder).read_text(encoding="utf-8"))


def headings(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


def test_the_json_in_the_page_is_the_report(tmp_path):
    write_run(tmp_path)
    page = page_of(tmp_path)
    assert page.json("pruning-report") == json.loads((tmp_path / "pruning_report.json").read_text())
    assert page.json("page-data")["version"] == 1
    assert page.json("page-data")["history"] == page.json("pruning-report")["history"]


def test_nothing_is_loaded_from_anywhere(tmp_path):
    write_run(tmp_path)
    page = page_of(tmp_path)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/webp;base64,")), value
    policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    style = re.search(r"<style>(.*?)</style>", (tmp_path / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_hostile_names_are_text(tmp_path):
    write_run(tmp_path, names=[HOSTILE, "b", "c", "d"])
    data = read_report(tmp_path / "pruning_report.json")
    data.layers.append(row(f"net.{HOSTILE}", reason=HOSTILE, status="left"))
    data.refused[HOSTILE] = HOSTILE
    data.module = HOSTILE
    write_report(tmp_path, data)
    page = page_of(tmp_path)
    assert page.all("img") == []
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert len(page.all("script")) == 3
    assert page.json("pruning-report")["classes"][0] == HOSTILE
    assert HOSTILE in page.text


def test_every_bar_is_as_long_as_what_is_stored(tmp_path):
    data = write_run(tmp_path, layers=5)
    page = page_of(tmp_path)
    widest = max(one.channels_before for one in data.layers)
    start = next(n for n, (tag, a) in enumerate(page.elements) if tag == "ol")
    inside = page.elements[start:]
    bars = [n for n, (tag, a) in enumerate(inside) if tag == "svg" and "data-before" in a]
    assert len(bars) == len(data.layers)
    for place, one in zip(bars, data.layers, strict=True):
        before, after = (float(inside[place + k][1]["width"]) * widest / 100 for k in (1, 2))
        assert before == pytest.approx(one.channels_before, abs=0.01)
        assert after == pytest.approx(one.channels_after, abs=0.01)
    fractions = [float(one["data-fraction"]) for one in page.all("svg") if "data-fraction" in one]
    dense, pruned = data.dense, data.pruned
    assert fractions == pytest.approx(
        [pruned.macs / dense.macs, pruned.parameters / dense.parameters,
         pruned.latency_ms / dense.latency_ms]
    )  # fmt: skip


def test_every_point_of_a_curve_is_where_its_number_is(tmp_path):
    data = write_run(tmp_path)
    text = write_page(tmp_path).read_text()
    charts = re.findall(r'<svg class="chart"(.*?)</svg>', text, re.DOTALL)
    assert len(charts) == 4
    seen = {}
    for chart in charts:
        x0, x1, y0, y1 = map(float, re.search(r'data-domain="([^"]*)"', chart)[1].split())
        left, right, bottom, top = map(float, re.search(r'data-plane="([^"]*)"', chart)[1].split())
        for name, line in re.findall(r'data-name="([^"]*)"><path d="([^"]*)"', chart):
            points = np.array([p.split() for p in re.findall(r"[ML]([\d.]+ [\d.]+)", line)], float)
            epochs = x0 + (points[:, 0] - left) / (right - left) * (x1 - x0)
            values = y0 + (points[:, 1] - bottom) / (top - bottom) * (y1 - y0)
            seen[name] = (epochs, values, (y1 - y0) / (bottom - top))
    stored = data.history
    expected = {
        **stored.metrics,
        "MACs": stored.macs_fraction,
        "learning rate": stored.learning_rate,
    }
    assert seen.keys() == expected.keys()
    for name, (epochs, values, pixel) in seen.items():
        assert epochs == pytest.approx(np.array(stored.epochs), abs=0.02)
        assert values == pytest.approx(np.array(expected[name]), abs=pixel * 0.011)
    spans = re.findall(r'class="span (\w+)".*?data-first="(\d+)" data-last="(\d+)"', charts[0])
    assert spans == [("dense", "0", "1"), ("masked", "2", "2"), ("cut", "3", "3")]


def test_the_numbers_of_a_layer_are_those_of_its_decision(tmp_path):
    data = write_run(tmp_path)
    layers = page_of(tmp_path).json("page-data")["layers"]
    assert list(layers) == [one.group for one in data.layers]
    for one in data.layers:
        stored, layer = read_decision(tmp_path, one.group), layers[one.group]
        bits = np.frombuffer(base64.b64decode(layer["keep"]), np.uint8)
        keep = np.flatnonzero(np.unpackbits(bits)[: layer["channels"]])
        assert keep.tolist() == stored.facts["keep"]
        owner = keep[np.frombuffer(base64.b64decode(layer["owner"]), np.uint8)]
        assert (stored.arrays["labels"][owner] == stored.arrays["labels"]).all()
        assert len(keep) == one.channels_after
        norms = np.frombuffer(base64.b64decode(layer["norms"]), np.uint8) / 255 * layer["largest"]
        assert norms == pytest.approx(stored.arrays["norms"], abs=layer["largest"] / 500)
        matrix = stored.separability
        pairs = np.frombuffer(base64.b64decode(layer["pairs"]), np.uint8) / 255 * 2
        assert pairs == pytest.approx(matrix.mean(axis=0), abs=2 / 500)
        rows = np.frombuffer(base64.b64decode(layer["rows"]), np.uint8).reshape(-1, 4) / 255 * 2
        order = {(0, 1): 0, (0, 2): 1, (0, 3): 2, (1, 2): 3, (1, 3): 4, (2, 3): 5}
        for place, channel in enumerate(layer["strongest"]):
            for k in range(4):
                against = [matrix[channel, n] for pair, n in order.items() if k in pair]
                assert rows[place, k] == pytest.approx(np.mean(against), abs=2 / 500)
        strength = stored.arrays["importance"]
        assert strength[layer["strongest"]].tolist() == sorted(strength, reverse=True)[:24]


def test_classes_with_few_objects_are_grouped(tmp_path):
    names = [f"class {n}" for n in range(40)]
    decision, found = record(8, 40, 4, "net.a")
    write_decision(tmp_path, decision, found, names)
    write_report(tmp_path, ReportData(layers=[row("net.a", 8, 4)], classes=names))
    drawn = page_of(tmp_path).json("page-data")
    layer, own = drawn["layers"]["net.a"], drawn["classes"][0]
    assert layer["classes"] == 0
    assert len(own) == 30
    assert own[-1] == "11 others"
    count = found.sources[0].moments.count.numpy()
    shown = [int(name.split()[1]) for name in own[:-1]]
    hidden = sorted(set(range(40)) - set(shown))
    assert count[hidden].max() <= count[shown].min()
    matrix = found.clustering.matrix.mean(0).numpy()
    pairs = np.frombuffer(base64.b64decode(layer["pairs"]), np.uint8) / 255 * 2
    one, other = np.triu_indices(40, 1)
    lookup = {(a, b): matrix[n] for n, (a, b) in enumerate(zip(one, other, strict=True))}
    last = np.mean([lookup[min(shown[0], h), max(shown[0], h)] for h in hidden])
    place = list(zip(*np.triu_indices(30, 1), strict=True)).index((0, 29))
    assert pairs[place] == pytest.approx(last, abs=0.02)


def test_a_large_model_stays_small(tmp_path):
    """As many channels as YOLOv8x has, 80 classes, 300 epochs: one group's record is repeated."""
    names = [f"a class called {n}" for n in range(80)]
    widths = [80, 80, 160, 160, 160, 320, 320, 640] * 12
    data = ReportData(classes=names)
    records = {width: record(width, 80, width // 2, "net.x") for width in (80, 160)}
    for number, width in enumerate(widths):
        name = f"network.backbone.stage{number}.bottlenecks.0.conv1.conv"
        data.layers.append(row(name, width, width // 2))
        decision, found = records[min(width, 160)]
        # The clusters of 640 channels take minutes and are not what is tested.
        decision = type(decision)(**{**vars(decision), "group": name})
        write_decision(tmp_path, decision, found, names)
        if width > 160:
            _widen(tmp_path, name, width)
    for epoch in range(300):
        metrics = {f"train/loss{n}": 1.0 / (epoch + n + 1) for n in range(4)}
        data.history = data.history or History()
        data.history.add(epoch, metrics | {"val/map50": epoch / 300}, 0.01, 1.0)
    write_report(tmp_path, data)
    images = [
        {"width": 160, "height": 120, "data": "data:image/webp;base64," + "A" * 8000,
         "dense": [], "pruned": []} for _ in range(6)
    ]  # fmt: skip
    samples = {"version": 1, "kind": "detection", "images": images}
    (tmp_path / "report_data" / "samples.json").write_text(json.dumps(samples))
    text = write_page(tmp_path).read_bytes()
    assert len(text) <= LIMIT
    layers = Page(text.decode()).json("page-data")["layers"]
    assert len(layers) == 96
    assert all("pairs" in layer and "norms" in layer for layer in layers.values())


def _widen(folder: Path, group: str, width: int) -> None:
    path = folder / "report_data" / f"{group}.json"
    facts = json.loads(path.read_text())
    times = width // facts["channels"]
    facts["keep"] = [n for n in range(width) if n % 2]
    facts["mss"] = [[k, 0.5] for k in range(2, width)]
    facts["channels"] = width
    path.write_text(json.dumps(facts))
    arrays = dict(np.load(path.with_suffix(".npz")))
    for name in ("norms", "importance", "separability", "embedding", "labels"):
        arrays[name] = np.concatenate([arrays[name]] * times)
    np.savez(path.with_suffix(".npz"), **arrays)


def test_a_page_over_the_limit_says_what_it_leaves_out(tmp_path, monkeypatch):
    write_run(tmp_path)
    whole = len(run_page(read_run(tmp_path)).encode())
    monkeypatch.setattr("lightning_prune.report.page.run_page.LIMIT", whole - 100)
    page = page_of(tmp_path)
    assert "leaves out the separability of single channels" in page.text
    layers = page.json("page-data")["layers"].values()
    assert all("rows" not in layer and "points" in layer for layer in layers)


def test_a_run_from_before_there_were_pages_has_one(tmp_path):
    data = write_run(tmp_path)
    for path in (tmp_path / "report_data").iterdir():
        path.unlink()
    plain = old_report(data)
    (tmp_path / "pruning_report.json").write_text(json.dumps(plain))
    (tmp_path / "metrics.csv").write_text(metrics_csv(data.history))
    page = page_of(tmp_path)
    assert page.json("pruning-report") == plain
    drawn = page.json("page-data")["history"]
    assert drawn["metrics"]["train/loss"] == data.history.metrics["train/loss"]
    assert drawn["learning_rate"] == data.history.learning_rate
    assert drawn["macs_fraction"][-1] == 0.45
    assert "SHA-256" not in re.sub(r"config.yaml, SHA-256", "", page.text)


def test_what_a_run_does_not_have_is_left_out(tmp_path):
    write_report(tmp_path, ReportData(layers=[row("net.a")]))
    text = headings(page_of(tmp_path))
    for absent in ("The run", "What both models see", "Cells", "Checkpoints", "Channel usage",
                   "Slices", "What was refused", "The file to deploy", "seed"):  # fmt: skip
        assert absent not in text, absent
    assert "1 layers, front to back" in text
    assert "None" not in text
    assert "Undefined" not in text


def test_usage_alone_is_shown_as_what_it_is(tmp_path):
    layer = {"channels": [8, 8], "used": [8, 5], "reset": [0, 2]}
    usage = {"threshold": 0.01, "epochs": [0, 1], "layers": {"net.a": layer}}
    write_report(tmp_path, ReportData(usage=Usage.from_plain(usage)))
    text = headings(page_of(tmp_path))
    assert "nothing was pruned" in text
    assert "net.a832" in text.replace(" ", "")
    assert "Before and after" not in text


def test_boxes_are_drawn_where_they_were_found(tmp_path):
    write_run(tmp_path)
    box = {"box": [10.0, 20.0, 50.5, 60.0], "score": 0.875, "name": HOSTILE}
    one = {"width": 160, "height": 120, "data": "data:image/webp;base64,AAAA", "dense": [box],
           "pruned": []}  # fmt: skip
    samples = {"version": 1, "kind": "detection", "images": [one] * 8}
    (tmp_path / "report_data" / "samples.json").write_text(json.dumps(samples))
    page = page_of(tmp_path)
    boxes = page.all("rect", "box dense")
    assert len(boxes) == 6
    assert {key: boxes[0][key] for key in ("x", "y", "width", "height")} == {
        "x": "10.0", "y": "20.0", "width": "40.5", "height": "40.0"
    }  # fmt: skip
    assert len(page.all("image")) == 6
    assert len(page.all("use")) == 6
    assert page.all("img") == []
    assert "0.88" in page.text


@pytest.mark.parametrize(
    ("interval", "end"),
    [([-0.01, 0.02], "-0.0100 to +0.0200 (95%): no difference beyond chance"),
     ([0.001, 0.02], "+0.0010 to +0.0200 (95%)")],
)  # fmt: skip
def test_the_verdict_says_what_chance_explains(tmp_path, interval, end):
    data = write_run(tmp_path)
    for side, value in ((data.dense, 0.6), (data.pruned, 0.61)):
        side.metrics["test/map50_95"] = value
    write_report(tmp_path, data)
    result = {"monitor": "val/map50_95", "value": 0.6, "metrics": {}, "macs": 0.45}
    (tmp_path / "result.json").write_text(json.dumps(result))
    paired = {"difference": 0.01, "interval_95": interval, "images": 87, "rounds": 200}
    samples = {"version": 1, "kind": "detection", "images": [], "paired": paired}
    (tmp_path / "report_data" / "samples.json").write_text(json.dumps(samples))
    answer = next(one for one in verdict(read_run(tmp_path)).answers if one.question == "As good")
    assert answer.text.endswith(f"; over 87 images, resampled, it differs by {end}")


def test_rates_and_cells_are_drawn_to_scale(tmp_path):
    write_run(tmp_path)
    cell = {"name": "session 0, cell 1", "recorded": [0, 2, 1, 4], "dense": [1.0, 1.5, 1.0, 3.0],
            "pruned": [0.5, 1.0, 1.0, 2.0]}  # fmt: skip
    samples = {"version": 1, "kind": "neural", "cells": [cell]}
    (tmp_path / "report_data" / "samples.json").write_text(json.dumps(samples))
    paired = {"mean_difference": -0.1, "interval_95": [-0.3, 0.1], "cells": 3, "cells_that_lost": 2,
              "differences": [[-0.4, 0.2], [None, -0.1]]}  # fmt: skip
    (tmp_path / "bits_per_spike_paired.json").write_text(json.dumps(paired))
    page = page_of(tmp_path)
    trace = page.all("svg", "trace")[0]
    for side in ("dense", "pruned"):
        points = [p.split(",") for p in page.all("polyline", side)[0]["points"].split()]
        values = [(1 - float(y) / 110) * float(trace["data-top"]) for _, y in points]
        assert values == pytest.approx(cell[side], abs=0.01)
    reach = float(page.all("svg", "cells")[0]["data-largest"])
    bars = page.all("rect", "lost") + page.all("rect", "gained")
    heights = [float(bar["height"]) * reach / 51 for bar in bars]
    assert heights == pytest.approx([0.4, 0.1, 0.2], abs=0.001)
    assert "2 of 3 lost" in page.text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no folder of a run: it holds none of pruning_report"):
        write_page(tmp_path)
    (tmp_path / "pruning_report.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        write_page(tmp_path)
    (tmp_path / "pruning_report.json").write_text('{"version": 99}')
    with pytest.raises(ValueError, match="of version 99"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_decisions_of_another_run_in_the_folder_are_not_shown(tmp_path):
    data = write_run(tmp_path)
    data.layers[0].channels_before += 1
    write_report(tmp_path, data)
    layers = page_of(tmp_path).json("page-data")["layers"]
    assert data.layers[0].group not in layers
    assert data.layers[1].group in layers


def test_the_weights_alone_and_the_runtime_are_named(tmp_path):
    write_run(tmp_path)
    data = read_report(tmp_path / "pruning_report.json")
    cut = [one for one in data.checkpoints if one.holds == "cut"]
    assert cut, "the run has a file of the cut model"
    data.latency_runtime = "ONNX Runtime 9.9"
    data.dense.latency_ms, data.pruned.latency_ms, data.device = 10.0, 5.0, "cpu"
    write_report(tmp_path, data)
    text = headings(page_of(tmp_path))
    assert (
        "10 to 5 ms on cpu, an example at a time, in ONNX Runtime 9.9, 2.00 times as fast" in text
    )
    assert "The weights alone" not in text
    best = next((one for one in cut if one.metric is not None), cut[0])
    lean = (tmp_path / best.file).with_suffix(".safetensors")
    lean.parent.mkdir(parents=True, exist_ok=True)
    lean.write_bytes(b"weights")
    assert f"The weights alone: {Path(best.file).with_suffix('.safetensors')}" in headings(
        page_of(tmp_path)
    )
