"""Folders of runs as they are written, without training: real decisions on made-up moments."""

import json
from html.parser import HTMLParser
from pathlib import Path

import torch

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.selection import choose_channels
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.decision_record import (
    DecisionRecord,
    SourceMoments,
    separability_of,
)
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.decision_store import write_decision
from lightning_prune.report.history import History
from lightning_prune.report.report_data import CheckpointRow, CutFacts, ReportData, write_report
from tests.report.reports import content

VOID = {"meta", "link", "img", "input", "br", "hr", "wbr"}


class Page(HTMLParser):
    """A page taken apart: its elements, the text of its scripts, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self._script: str | None = None
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or "script"
            self.scripts[self._script] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    def json(self, name: str) -> dict:
        return json.loads(self.scripts[name])

    def all(self, tag: str, of: str = "") -> list[dict[str, str | None]]:
        classes = set(of.split())
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and classes <= set((attributes.get("class") or "").split())
        ]


def record(channels: int, classes: int, width: int, group: str, seed: int = 0):
    """Return a decision and what it rests on, from samples of random classes."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (40 * classes,), generator=draw)
    centre = torch.randn(classes, channels, generator=draw)
    samples = centre[label] + torch.randn(len(label), channels, generator=draw)
    moments = class_moments(samples, label, classes)
    sources = (SourceMoments(group, torch.arange(channels), moments),)
    matrix = separability_of(sources, channels)
    clustering = cluster_channels(matrix, embedding="pca")
    norms = torch.rand(channels, generator=draw).double() + 0.1
    chosen = choose_channels(clustering, norms, width)
    decision = GroupDecision(group, chosen.keep, channels, clustering.knee, "knee", "pruned", "")
    clusterer = ChannelClusterer(embedding="pca")
    found = DecisionRecord("Separability", norms, norms, clustering, sources, clusterer)
    return decision, found


def history(epochs: int = 4) -> History:
    found = History()
    for epoch in range(epochs):
        metrics = {"train/loss": 3.0 / (epoch + 1), "val/map50": 0.2 * epoch + 0.05}
        found.add(epoch, metrics, 0.1 / (epoch + 1), 1.0 if epoch < 2 else 0.45)
    return found


def report(layers: int = 3, names: list[str] | None = None) -> ReportData:
    data = content(layers)
    data.cut, data.first_mask_epoch = CutFacts(3, 30, 1e-7, []), 2
    data.history = history()
    data.seed, data.module, data.device = 3, "DetectionModule", "cpu"
    data.versions = {"torch": "2.6.0"}
    data.classes = names or [f"class {n}" for n in range(4)]
    data.refused = {"head.out": "the model's output shows its channels"}
    data.checkpoints = [
        CheckpointRow("checkpoints/best_pruned.ckpt", "cut", 3, 0.89, "val/map50",
                      "highest val/map50 of the cut model", 12_345, "ab" * 32),
    ]  # fmt: skip
    return data


def write_run(folder: Path, layers: int = 3, names: list[str] | None = None) -> ReportData:
    """Write a run's folder with everything but samples."""
    data = report(layers, names)
    for number, row in enumerate(data.layers):
        width, classes = row.channels_after, len(data.classes)
        decision, found = record(row.channels_before, classes, width, row.group, number)
        row.knee = decision.knee
        write_decision(folder, decision, found, data.classes)
    write_report(folder, data)
    command = {"task": ["+pruning=channel", "seed=3"], "hydra": [], "cwd": "/", "config_dir": None}
    (folder / "command.json").write_text(json.dumps(command))
    (folder / "config.yaml").write_text("seed: 3\n")
    result = {"monitor": "val/map50", "value": 0.89, "metrics": {"test/map50": 0.905}, "macs": 0.45}
    (folder / "result.json").write_text(json.dumps(result))
    return data


def old_report(data: ReportData) -> dict:
    """Return a report as it was written before there were pages."""
    plain = data.to_plain()
    for key in ("classes", "refused", "history", "separability", "label_free"):
        del plain[key]
    for side in ("dense", "pruned"):
        del plain[side]["bytes"]
    for row in plain["checkpoints"]:
        del row["bytes"], row["sha256"]
    return plain


def metrics_csv(found: History) -> str:
    rows = ["epoch,step,train/loss,val/map50,lr-SGD,pruning/macs"]
    for n, epoch in enumerate(found.epochs):
        rows.append(f"{epoch},{10 * n},,,{found.learning_rate[n]},")
        loss, metric = (found.metrics[name][n] for name in ("train/loss", "val/map50"))
        rows.append(f"{epoch},{10 * n + 9},{loss},{metric},,{found.macs_fraction[n]}")
    return "\n".join(rows) + "\n"
