"""The pictures that the report leaves in its folder."""

import json
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.figures import write_figure, write_selection
from tests.networks import EXAMPLE, Residual, make
from tests.report.reports import content


def decision(name, channels, kept=3, status="pruned"):
    return GroupDecision(name, torch.arange(kept), channels, None, "knee", status, "")


def clustered(channels):
    generator = torch.Generator().manual_seed(channels)
    return cluster_channels(torch.rand(channels, 3, generator=generator), embedding="none")


def test_a_picture_is_named_after_its_group(tmp_path):
    path = write_selection(tmp_path / "figures", clustered(8), decision("net/a.conv 1", 8))
    assert path == tmp_path / "figures" / "net_a.conv_1.png"
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 400))


def test_an_unwritten_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("no space left on device")

    figure = Figure()
    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        write_figure(path, figure)
    assert path.read_bytes() == b"old"


def run(folder, rank=0, clusterings=True, **options):
    """Show the report one epoch in which three groups were decided, and let it write."""
    net = make(Residual)
    groups = trace_groups(net, EXAMPLE)
    decisions = [decision("stem.0", 8), decision("a1.0", 6), decision("b1.0", 10)]
    masker = SimpleNamespace(groups=groups, decisions=decisions, plan=PruningPlan(), finished=False)
    if clusterings:
        # Of the third nothing is known: no object was matched.
        masker.clusterings = {"stem.0": clustered(8), "a1.0": clustered(6)}
    trainer = SimpleNamespace(
        callbacks=[masker],
        callback_metrics={},
        is_global_zero=rank == 0,
        default_root_dir=str(folder),
    )
    report = PruningReport(latency_rounds=0, show=False, **options)
    report.on_train_epoch_start(trainer, net)
    report.on_train_epoch_start(trainer, net)  # drawn once
    return report


def names(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_the_report_draws_each_group_once_when_it_is_chosen(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "lightning_prune.callbacks.pruning_report.write_selection",
        lambda folder, clustering, decision: drawn.append((folder, decision.group)),
    )
    run(tmp_path)
    assert drawn == [(tmp_path / "figures", "stem.0"), (tmp_path / "figures", "a1.0")]


def test_pictures_and_overview_lie_in_the_folder(tmp_path):
    report = run(tmp_path)
    assert names(tmp_path) == ["figures/a1.0.png", "figures/stem.0.png"]
    report.content = content(2)
    path = report.write(tmp_path)
    assert json.loads(path.read_text())["layers"][0]["name"] == "backbone.stage0.conv"
    assert "figures/overview.png" in names(tmp_path)


@pytest.mark.parametrize("options", [{"rank": 1}, {"figures": False}, {"clusterings": False}])
def test_no_picture_on_other_ranks_without_clusters_or_when_switched_off(tmp_path, options):
    run(tmp_path, **options)
    assert names(tmp_path) == []


def test_switched_off_there_is_no_overview_either(tmp_path):
    report = PruningReport(figures=False, page=False)
    report.content = content(2)
    report.write(tmp_path)
    assert names(tmp_path) == ["pruning_report.json"]
