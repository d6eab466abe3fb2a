import json
from dataclasses import replace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_prune
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.graph.macs import count_macs
from tests.callbacks.classifiers import EXAMPLE, Classifier, masker, trainer

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")
OPTIONS = {
    "latency_rounds": 1, "latency_runtime": "pytorch", "show": False, "figures": False
}  # fmt: skip


def run(folder, model, report, epochs=4, extra=(), ckpt_path=None, **options):
    stage = masker(**{"start_epoch": 1} | options)
    callbacks = [stage, PhysicalPruner(), OptimizerResetter(), report, *extra]
    run = trainer(folder, callbacks, epochs, enable_checkpointing=bool(extra))
    run.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return stage, run


@pytest.mark.parametrize("hold", [0, 1])
def test_the_file_says_what_was_pruned_and_what_it_did(hold, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    model, dense = Classifier(), Classifier()
    report = PruningReport(str(tmp_path / "out"), **OPTIONS)
    _, fitted = run(tmp_path, model, report, hold_epochs=hold, mac_target=0.4)
    content = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert content == report.content.to_plain()
    assert list(content)[:3] == ["version", "dense", "pruned"]
    for side, module in (("dense", dense), ("pruned", model)):
        assert content[side]["parameters"] == sum(p.numel() for p in module.parameters())
        assert content[side]["macs"] == count_macs(module, EXAMPLE)
        assert content[side]["latency_ms"] > 0
    assert content["pruned"]["macs"] <= 0.4 * content["dense"]["macs"]
    accuracy = float(fitted.callback_metrics["val/accuracy"])
    assert content["pruned"]["metrics"] == {"val/accuracy": accuracy}
    before = trainer(tmp_path, [], 1)
    before.fit(dense)
    assert content["dense"]["metrics"] == {
        "val/accuracy": float(before.callback_metrics["val/accuracy"])
    }
    assert content["latency_runtime"] == "PyTorch"
    assert content["seed"] == 7
    assert content["versions"]["torch"] in torch.__version__
    assert content["versions"]["lightning"] == lightning.__version__
    assert content["versions"]["lightning-prune"] == lightning_prune.__version__
    assert content["cut"]["epoch"] == 1 + hold
    assert content["cut"]["global_step"] == 6 * (1 + hold)
    assert content["cut"]["output_difference"] < 1e-5


def test_latency_is_that_of_onnx_runtime_where_it_is_installed(tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    report = PruningReport(str(tmp_path), latency_rounds=2, show=False, figures=False)
    run(tmp_path, Classifier(), report)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    assert report.content.latency_runtime == runtime
    assert report.content.dense.latency_ms > 0
    assert report.content.pruned.latency_ms > 0
    report.print()
    assert runtime in capsys.readouterr().out


def test_every_producing_layer_has_a_row(tmp_path):
    report = PruningReport(str(tmp_path), **OPTIONS)
    stage, _ = run(tmp_path, Classifier(), report)
    rows = {row.name: row for row in report.content.layers}
    assert list(rows) == [f"net.{name}.0" for name in ("stem", "inner", "outer", "deep")]
    for decision in stage.decisions:
        row = rows[decision.group]
        assert row.channels_before == decision.channels
        assert row.channels_after == len(decision.keep)
        assert (row.knee, row.bound) == (decision.knee, decision.bound)
        assert (row.status, row.reason) == ("pruned", "")
    tied = rows["net.outer.0"]
    assert tied.group == "net.stem.0"
    assert tied.channels_after == rows["net.stem.0"].channels_after


def test_a_resumed_run_completes_the_report(tmp_path):
    def files(folder):
        return ModelCheckpoint(
            folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True, every_n_epochs=1
        )

    whole = PruningReport(str(tmp_path), **OPTIONS)
    run(tmp_path, Classifier(), whole, extra=[files(tmp_path / "files")])
    for epoch in (0, 1, 2):
        again, folder = PruningReport(str(tmp_path), **OPTIONS), tmp_path / f"again{epoch}"
        path = tmp_path / "files" / f"epoch={epoch}.ckpt"
        torch.load(path, weights_only=True)
        run(folder, Classifier(), again, extra=[files(folder)], ckpt_path=path)
        for key in ("layers", "cut", "versions", "device"):
            assert getattr(again.content, key) == getattr(whole.content, key), key
        for side in ("dense", "pruned"):
            ours, theirs = again.content.of(side), whole.content.of(side)
            assert ours.latency_ms > 0
            assert replace(ours, latency_ms=0) == replace(theirs, latency_ms=0)


def test_metrics_can_be_added_and_the_table_is_printed(tmp_path, capsys):
    report = PruningReport(str(tmp_path), latency_rounds=0, figures=False)
    run(tmp_path, Classifier(), report)
    report.add_metrics("dense", {"test/accuracy": torch.tensor(0.75)})
    report.add_metrics("pruned", {"test/accuracy": 0.5})
    lines = capsys.readouterr().out.splitlines()
    assert sum("3 of 3 groups narrower" in line for line in lines) == 1
    assert f"look          {tmp_path / 'report.html'}" in lines
    report.print()
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("test/accuracy", "0.7500", "0.5000", "-0.2500"))
    written = json.loads(report.write(tmp_path / "other").read_text())
    assert written["dense"]["metrics"]["test/accuracy"] == 0.75
    assert written["dense"]["latency_ms"] is None


def test_without_a_folder_it_lies_in_the_trainers(tmp_path):
    run(tmp_path, Classifier(), PruningReport(None, **OPTIONS))
    assert (tmp_path / "pruning_report.json").is_file()


def test_a_run_that_pruned_nothing_writes_nothing(tmp_path):
    report = PruningReport(str(tmp_path), **OPTIONS)
    with pytest.warns(UserWarning, match="PruningReport has no effect: nothing was pruned"):
        trainer(tmp_path, [report], 1).fit(Classifier())
    assert not (tmp_path / "pruning_report.json").exists()
    with pytest.raises(ValueError, match="latency_rounds=-1: pass an integer of at least 0"):
        PruningReport(latency_rounds=-1)


def test_a_run_that_only_zeroes_slices_is_reported_with_its_size_unchanged(tmp_path):
    report = PruningReport(str(tmp_path), **OPTIONS)
    stage = SliceMasker(block_size=4, start_epoch=0, end_epoch=2, pruning_ratio=0.5)
    trainer(tmp_path, [stage, report], 3).fit(Classifier())
    content = json.loads((tmp_path / "pruning_report.json").read_text())
    assert set(content["slices"]) == {
        f"net.{name}.0" for name in ("stem", "inner", "outer", "deep")
    }
    assert all(0.4 < share <= 0.5 for share in content["slices"].values())
    assert content["pruned"]["macs"] == content["dense"]["macs"]
    assert content["pruned"]["metrics"]
    assert content["cut"] is None


class OtherNames(Classifier):
    """Logs metrics whose names say nothing of validation, and others while it trains."""

    def __init__(self, validates=True):
        super().__init__()
        self.validates = validates

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        self.log("val_like_name_of_training", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        if self.validates:
            self.log("accuracy", self.accuracy(batch))
            self.log("mAP/all", torch.tensor(float("nan")))


def test_metrics_of_any_name_are_compared_if_a_validation_logged_them(tmp_path):
    report = PruningReport(str(tmp_path), **OPTIONS)
    _, fitted = run(tmp_path, OtherNames(), report)
    accuracy = float(fitted.callback_metrics["accuracy"])
    assert report.content.pruned.metrics == {"accuracy": accuracy}
    assert report.content.dense.metrics.keys() == {"accuracy"}


@pytest.mark.parametrize(
    ("validates", "start", "said"),
    [
        (False, 1, "compares no metrics: no validation logged a finite one"),
        (True, 0, "has no metrics of the dense model: no validation came before the first mask"),
    ],
)
def test_what_cannot_be_compared_is_said(validates, start, said, tmp_path, caplog):
    report = PruningReport(str(tmp_path), **OPTIONS)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        run(tmp_path, OtherNames(validates), report, start_epoch=start)
    assert said in caplog.text
