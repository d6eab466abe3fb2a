from pathlib import Path

from lightning_prune.runs.configuration.run_facts import RunFacts


def test_what_the_folder_says(tmp_path: Path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("monitor: val/map\npruning:\n  masker: null\n")
    words = ["+experiment=x", "model.weights=a.pt", "model.size=s", "data=yolo_folder",
             "data.root=a b", "pruning.regularizer.reg=1", "+trainer.devices=2", "model=yolov8",
             "dense_epochs=3", "datasets=1"]  # fmt: skip
    (tmp_path / ".hydra/overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    rows = "step,epoch,val/map\n1,0.0,0.1\n2,,0.3\n3,1.0,\n4,1.0,0.4\n5,1.0,0.5\n"
    (tmp_path / "metrics.csv").write_text(rows)
    facts = RunFacts.of(tmp_path / "checkpoints")
    assert facts == RunFacts.of(tmp_path)
    assert facts.get("monitor") == "val/map"
    assert facts.get("pruning.masker.mac_target") is facts.get("nowhere") is None
    assert facts.metric("val/map") == {0: 0.1, 1: 0.5}
    assert facts.lasting_overrides == (
        "model.size=s", "data=yolo_folder", "data.root=a b", "+trainer.devices=2",
    )  # fmt: skip


def test_an_empty_folder(tmp_path: Path):
    facts = RunFacts.of(tmp_path)
    assert (facts.config, facts.overrides, facts.metric("val/map")) == ({}, (), {})
    (tmp_path / "config.yaml").write_text("a: [")
    assert RunFacts.of(tmp_path).config == {}
