import json
from dataclasses import replace

import pytest

from lightning_prune.report.report_data import (
    CheckpointRow,
    CutFacts,
    DistillationFacts,
    LabelFreeFacts,
    LayerUsage,
    ModelFacts,
    ReportData,
    SeparabilityFacts,
    Usage,
    read_report,
    write_report,
)
from tests.report.reports import content, row

FULL = replace(
    content(2),
    cut=CutFacts(3, 120, 1e-7, ["norm"]),
    slices={"head": 0.25},
    first_mask_epoch=1,
    checkpoints=[CheckpointRow("last.ckpt", "cut", 4, None, None, "the latest")],
    usage=Usage(1e-6, [0, 1], {"stem": LayerUsage([8, 8], [7, 8], [0, 1])}),
    distillation=DistillationFacts(3, 1.0, 0.5),
    label_free=LabelFreeFacts(300, 250, 0.8, 0.9),
    seed=7,
    versions={"torch": "2"},
    device="cpu",
    separability=SeparabilityFacts(2, 1, 1, 0.5),
)


@pytest.mark.parametrize("data", [ReportData(), content(), FULL], ids=["empty", "some", "full"])
def test_what_is_written_is_read_as_it_was(data, tmp_path):
    path = write_report(tmp_path, data)
    assert path == tmp_path / "pruning_report.json"
    assert read_report(path) == data


def test_the_file_has_the_keys_that_scripts_know(tmp_path):
    plain = json.loads(write_report(tmp_path, FULL).read_text())
    assert list(plain) == [
        "version", "dense", "pruned", "layers", "cut", "slices", "first_mask_epoch",
        "checkpoints", "usage", "distillation", "label_free", "seed", "versions", "device",
        "module", "separability", "classes", "refused", "history", "latency_runtime",
    ]  # fmt: skip
    assert plain["version"] == 1
    assert plain["cut"] == {
        "epoch": 3, "global_step": 120, "output_difference": 1e-7, "mixed_by": ["norm"],
    }  # fmt: skip
    assert plain["usage"]["layers"] == {
        "stem": {"channels": [8, 8], "used": [7, 8], "reset": [0, 1]}
    }
    assert plain["dense"]["metrics"]["val/map50"] == 0.9


@pytest.mark.parametrize("version", [None, 0, 2])
def test_a_file_of_another_version_says_so_in_one_sentence(version, tmp_path):
    path = tmp_path / "pruning_report.json"
    path.write_text(json.dumps(FULL.to_plain() | {"version": version}))
    with pytest.raises(ValueError, match=rf"is of version {version}, and this lightning_prune rea"):
        read_report(path)


def test_a_report_from_before_versions_is_read():
    plain = FULL.to_plain()
    del plain["version"]
    del plain["module"]
    assert ReportData.from_plain(plain) == replace(FULL, module=None)


@pytest.mark.parametrize(
    ("dense", "pruned", "fraction"), [(80, 20, 0.25), (80, None, None), (None, None, None)]
)
def test_what_remains_of_the_macs(dense, pruned, fraction):
    data = ReportData(dense=ModelFacts(macs=dense), pruned=ModelFacts(macs=pruned))
    assert data.macs_fraction == fraction


def test_training_ends_with_the_dense_model_where_only_usage_was_tracked():
    assert ReportData(usage=FULL.usage).trained == "dense"
    assert FULL.trained == ReportData(slices={"a": 0.0}).trained == ReportData().trained == "pruned"
    assert ReportData().is_empty
    assert not ReportData(usage=FULL.usage).is_empty


def test_separability_has_decided_where_it_chose_and_is_better_than_chance():
    measured = {"separability": 0.4, "separability_at_random": 0.01, "count": 5}
    noise = measured | {"noise": True}
    rows = [
        row("a", **measured),
        row("b", **measured | {"group": "a"}),  # tied to a: one group
        row("c", **noise),  # its clusters chose all the same
        row("d", **noise, status="fallback"),
        row("e", status="fallback"),  # no object was matched
        row("f", status="left"),
    ]
    assert SeparabilityFacts.of(rows) == SeparabilityFacts(4, 1, 2, 0.25)
    assert SeparabilityFacts.of(rows[4:]) is None
    assert SeparabilityFacts.of([]) is None


def test_a_report_of_an_earlier_release_is_read():
    plain = FULL.to_plain()
    del plain["separability"]
    for layer in plain["layers"]:
        del layer["count"]
    assert ReportData.from_plain(plain) == replace(FULL, separability=None)
