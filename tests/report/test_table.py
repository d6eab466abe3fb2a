import io
from dataclasses import replace

from rich.console import Console

from lightning_prune.report.report_data import (
    CheckpointRow,
    CutFacts,
    LayerUsage,
    SeparabilityFacts,
    Usage,
)
from lightning_prune.report.table import print_report
from tests.report.reports import content, row


def printed(report):
    file = io.StringIO()
    print_report(report, Console(file=file, width=120))
    return [line.split() for line in file.getvalue().splitlines()], file.getvalue()


def test_layers_and_both_models_with_their_changes():
    lines, text = printed(content())
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["backbone.stage1.conv", "17", "9", "47%", "9", "knee", "pruned"] in cells
    assert ["parameters", "(million)", "3.000", "1.500", "-50.0%"] in cells
    assert ["MACs", "(million)", "200.0", "90.0", "-55.0%"] in cells
    assert ["test/map50", "0.9100", "0.9050", "-0.0050"] in cells
    assert "12.00" in text
    assert "-37.5%" in text


def test_what_is_unknown_is_a_dash():
    report = content()
    report.dense.latency_ms, report.dense.metrics = None, {"val/map50": 0.9}
    report.layers[0].knee = None
    lines, text = printed(report)
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["test/map50", "-", "0.9050", "-"] in cells
    assert "latency" not in text
    assert ["backbone.stage0.conv", "16", "8", "50%", "-", "knee", "pruned"] in cells


def test_reasons_are_given_once_for_all_their_layers():
    report = content()
    report.layers += [
        row(name, 3, 3, status="left", bound="none", reason="3 channels are too few")
        for name in ("a", "b")
    ]
    assert "left (3 channels are too few): a, b" in printed(report)[1]


def test_separability_stands_beside_that_of_random_labels_where_it_was_measured():
    report = content()
    report.layers[0] = row(
        "stem", count=5, separability=0.41, separability_at_random=0.0123, bound="count"
    )
    report.separability = SeparabilityFacts(3, 2, 1, 2 / 3)
    lines, text = printed(report)
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["stem", "16", "8", "50%", "9", "5", "0.410", "(0.012)", "count", "pruned"] in cells
    assert "Separability decided 2 of 3 pruned groups (67%); in 1 it is no better than" in text
    assert "profiles" not in printed(content())[1]


def test_slices_are_listed_by_layer_and_called_no_faster():
    report = replace(content(), layers=[], slices={"backbone.stage0.conv": 0.25, "head": 0.0})
    lines, text = printed(report)
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["backbone.stage0.conv", "25.0%"] in cells
    assert ["head", "0.0%"] in cells
    assert "no speed on general hardware" in text
    assert "Layers, front to back" not in text


def test_checkpoints_say_which_model_they_hold():
    why = "highest val/map50 of the cut model"
    rows = [
        CheckpointRow("best_pruned.ckpt", "cut", 14, 0.71234, "val/map50", why),
        CheckpointRow("last.ckpt", None, None, None, None, "the latest; cannot be read"),
    ]
    report = replace(content(), checkpoints=rows)
    lines, text = printed(report)
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["best_pruned.ckpt", "cut", "15", "0.7123", *why.split()] in cells
    assert ["last.ckpt", "-", "-", "-", "the", "latest;", "cannot", "be", "read"] in cells
    assert "Checkpoints" not in printed(content())[1]
    assert "Checkpoints" in text


def test_the_last_line_says_how_to_load_the_cut_model():
    best = CheckpointRow("best_pruned.ckpt", "cut", 14, 0.7, "val/map50", "highest")
    rows = [
        CheckpointRow("dense.ckpt", "dense", 3, None, None, "before the first mask"),
        CheckpointRow("last.ckpt", "cut", 20, None, None, "the latest"),
    ]
    known = {"cut": CutFacts(4, 40, None, [])}
    for files, end in (
        ([*rows, best], "lightning_prune.load_pruned(CLASS, 'best_pruned.ckpt')"),
        (rows, "lightning_prune.load_pruned(CLASS, 'last.ckpt')"),
        (rows[:1], "lightning_prune.load_pruned(CLASS, PATH)"),
    ):
        for module in (None, "Detector"):
            made = replace(content(), checkpoints=files, module=module, **known)
            last = printed(made)[1].splitlines()[-1]
            assert last.endswith(f": {end}".replace("CLASS", module or "CLASS"))
    assert "load_pruned" not in printed(replace(content(), cut=None))[1]


def usage(**layers):
    return Usage(1e-6, [0, 1, 2], {name: LayerUsage(*row) for name, row in layers.items()})


QUIET = ([8, 8, 8], [8, 8, 8], [0, 0, 0])


def test_usage_is_that_of_the_last_epoch_and_of_all_resets():
    tracked = usage(
        stem=([8, 8, 6], [5, 7, 4], [0, 3, 1]), quiet=QUIET, dead=([4] * 3, [4, 4, 1], [0] * 3),
        revived=([4] * 3, [3, 4, 4], [0, 1, 0]), still=QUIET,
    )  # fmt: skip
    report = replace(content(), usage=tracked)
    lines, text = printed(report)
    cells = [[cell for cell in line if cell != "│"] for line in lines]
    assert ["stem", "6", "2", "4"] in cells
    assert ["dead", "4", "3", "0"] in cells
    assert ["revived", "4", "0", "1"] in cells
    assert ["2", "other", "layers", "0", "0"] in cells
    assert "quiet" not in text
    assert "still" not in text
    assert text.index("Layers, front to back") < text.index("Channel usage") < text.index("MACs")


def test_usage_alone_names_no_pruned_model():
    report = replace(content(), layers=[], usage=usage(a=QUIET))
    lines, text = printed(report)
    assert ["1", "tracked", "layer", "0", "0"] in [[c for c in ln if c != "│"] for ln in lines]
    assert "front to back" not in text
    assert "pruned" not in text
    assert "Channel usage" not in printed(content())[1]
