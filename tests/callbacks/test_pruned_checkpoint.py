import hashlib
import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.callbacks.pruning_report import PruningReport
from tests.callbacks.classifiers import Classifier, masker, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed from", "ignore:Checkpoint directory .* is not empty"
)
# Dense in 0 and 1, masked in 2, cut in 3 to 6.
SCORES = (0.5, 0.9, 0.8, 0.3, 0.6, 0.7, 0.4)


class Scored(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val/score", SCORES[self.trainer.current_epoch])


def run(folder, files, epochs=7, extra=(), ckpt_path=None, **options):
    stage = masker(start_epoch=2, hold_epochs=1, **options)
    callbacks = [stage, PhysicalPruner(), *extra, *files]
    run = trainer(folder, callbacks, epochs, enable_checkpointing=True)
    model = Scored()
    run.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return model, run


def best(folder, kind=ModelCheckpoint, name="best"):
    return kind(folder, name, monitor="val/score", mode="max", enable_version_counter=False)


def pruned(folder):
    return PrunedCheckpoint(str(folder), monitor="val/score")


def last(folder):
    return ModelCheckpoint(folder, "last", enable_version_counter=False)


def test_it_keeps_the_best_of_the_cut_model_beside_the_best_of_all(tmp_path):
    files = [best(tmp_path), pruned(tmp_path), last(tmp_path)]
    run(tmp_path, files)
    assert len({callback.state_key for callback in files}) == 3
    found = {
        name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        for name in ("best", "best_pruned", "last")
    }
    assert {name: file["epoch"] for name, file in found.items()} == {
        "best": 1,
        "best_pruned": 5,
        "last": 6,
    }
    widths = {name: len(file["state_dict"]["net.deep.0.weight"]) for name, file in found.items()}
    assert widths["best"] == 16
    assert widths["best_pruned"] == widths["last"] < 16
    assert files[1].best_model_score == pytest.approx(0.7)
    loaded = Scored.load_from_checkpoint(tmp_path / "best_pruned.ckpt", weights_only=True)
    assert loaded.net.deep[0].out_channels == widths["best_pruned"]
    assert not list(tmp_path.glob("best_pruned-*"))


@pytest.mark.filterwarnings("ignore:.*best_pruned.ckpt. not there any more:UserWarning")
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_resumed_run_finds_the_same_best(epoch, tmp_path):
    every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
    run(tmp_path, [pruned(tmp_path), every])
    whole = torch.load(tmp_path / "best_pruned.ckpt", weights_only=True)
    for folder in (tmp_path, tmp_path / "other"):
        (tmp_path / "best_pruned.ckpt").unlink(missing_ok=True)
        other = ModelCheckpoint(tmp_path / "again", "{epoch}", save_top_k=-1, every_n_epochs=1)
        run(tmp_path, [pruned(folder), other], ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        found = torch.load(folder / "best_pruned.ckpt", weights_only=True)
        assert found["epoch"] == 5
        for name, value in whole["state_dict"].items():
            assert torch.equal(found["state_dict"][name], value), name


def test_a_run_that_had_none_before_knows_of_the_cut(tmp_path):
    every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    run(tmp_path, [every])
    again = pruned(tmp_path / "new")
    other = ModelCheckpoint(tmp_path / "again", "{epoch}", save_top_k=-1)
    run(tmp_path, [again, other], ckpt_path=tmp_path / "epoch=5.ckpt")
    found = torch.load(tmp_path / "new" / "best_pruned.ckpt", weights_only=True)
    assert found["epoch"] == 6


def test_without_a_cut_it_saves_nothing(tmp_path):
    files = [pruned(tmp_path)]
    run = trainer(tmp_path, files, 2, enable_checkpointing=True)
    run.fit(Scored())
    assert not list(tmp_path.glob("*.ckpt"))
    assert files[0].best_model_path == ""


def test_the_report_says_which_file_is_which(tmp_path):
    report = PruningReport(str(tmp_path), latency_rounds=0, show=False, figures=False)
    folder = tmp_path / "checkpoints"
    files = [
        best(folder),
        pruned(folder),
        last(tmp_path.parent / "elsewhere"),
        ModelCheckpoint(
            folder, "{epoch}", "val/score", mode="min", save_top_k=-1, save_weights_only=True
        ),
    ]
    run(tmp_path, files, extra=[report], dense_checkpoint=str(folder / "dense.ckpt"))
    content = json.loads((tmp_path / "pruning_report.json").read_text())
    assert content["first_mask_epoch"] == 2
    rows = {row.pop("file"): row for row in content["checkpoints"]}
    for file, row in rows.items():
        written = (tmp_path / file).read_bytes()
        assert row.pop("bytes") == len(written)
        assert row.pop("sha256") == hashlib.sha256(written).hexdigest()
    assert rows.pop("checkpoints/best.ckpt") == {
        "holds": "dense",
        "epoch": 1,
        "metric": pytest.approx(0.9),
        "monitored": "val/score",
        "why": "highest val/score of the whole run",
    }
    assert rows.pop("checkpoints/best_pruned.ckpt") == {
        "holds": "cut",
        "epoch": 5,
        "metric": pytest.approx(0.7),
        "monitored": "val/score",
        "why": "highest val/score of the cut model",
    }
    assert rows.pop(str((tmp_path.parent / "elsewhere" / "last.ckpt").resolve())) == {
        "holds": "cut",
        "epoch": 6,
        "metric": None,
        "monitored": None,
        "why": "the latest",
    }
    assert rows.pop("checkpoints/dense.ckpt") == {
        "holds": "dense",
        "epoch": 1,
        "metric": None,
        "monitored": None,
        "why": "before the first mask (dense_checkpoint)",
    }
    holds = {name: (row["holds"], row["epoch"]) for name, row in rows.items()}
    assert holds == {
        f"checkpoints/epoch={epoch}.ckpt": (kind, epoch)
        for epoch, kind in enumerate(["dense"] * 2 + ["masked"] + ["cut"] * 4)
    }


def test_files_that_are_gone_or_torn_are_not_made_up(tmp_path):
    class Thief(PruningReport):
        def on_train_end(self, trainer, pl_module):
            (tmp_path / "best.ckpt").unlink()
            (tmp_path / "last.ckpt").write_bytes(b"torn")
            super().on_train_end(trainer, pl_module)

    report = Thief(str(tmp_path), latency_rounds=0, show=False, figures=False)
    run(tmp_path, [best(tmp_path), last(tmp_path)], extra=[report])
    (row,) = report.content.checkpoints
    assert (row.file, row.holds, row.epoch) == ("last.ckpt", None, None)
    assert row.why == "the latest; cannot be read"
