"""Runs with networks of theirs: pruned, resumed, tested by their validator, segmented."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune import ChannelMasker, ExactResume, PhysicalPruner
from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.detection.ultralytics.data import UltralyticsDataModule, collate
from lightning_prune.detection.ultralytics.data_yaml import whole_paths
from lightning_prune.detection.ultralytics.module import UltralyticsModule
from lightning_prune.detection.ultralytics.their_figures import their_figures
from lightning_prune.errors import DataError
from tests.outside.ultralytics.conftest import draw_folder, scrambled

SIZE = 64


def data(yaml: Path, task: Any = "segment") -> UltralyticsDataModule:
    return UltralyticsDataModule(yaml, task, SIZE, batch_size=4, seed=1)


def fit(
    name: str, yaml: Path, folder: Path, ckpt_path: Path | None = None, epochs: int = 4
) -> tuple[L.Trainer, UltralyticsModule]:
    L.seed_everything(0)
    module = UltralyticsModule(name=name, num_classes=2, image_size=SIZE, warmup_epochs=0)
    scrambled(module.network)
    stages = [
        ChannelMasker(mac_target=0.6, start_epoch=1, end_epoch=2),
        PhysicalPruner(),
        ExactResume(),
        ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1),
    ]
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=stages, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, limit_val_batches=1,
    )  # fmt: skip
    task = "segment" if name.endswith("-seg") else "detect"
    trainer.fit(module, data(yaml, task), ckpt_path=ckpt_path)
    return trainer, module


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # two folders on purpose
@pytest.mark.parametrize("name", ["yolo26n", "yolov8n-seg"])
def test_a_resumed_run_equals_the_uninterrupted_one(
    name: str, shapes: Path, tmp_path: Path
) -> None:
    trainer, whole = fit(name, shapes, tmp_path / "whole")
    _, resumed = fit(name, shapes, tmp_path / "again", tmp_path / "whole" / "epoch=1.ckpt")
    dense = UltralyticsModule(name=name, num_classes=2, image_size=SIZE)
    count = sum(p.numel() for p in whole.parameters())
    assert count < 0.8 * sum(p.numel() for p in dense.parameters())
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    # The test logs what their validator says of the cut network.
    (metrics,) = trainer.test(whole, data(shapes, "segment" if "seg" in name else "detect"))
    assert {"test/map50", "test/ultralytics_map50_95"} <= set(metrics)
    assert ("test/ultralytics_mask_map50_95" in metrics) == name.endswith("-seg")


def test_what_is_drawn_depends_on_seed_epoch_and_index(shapes: Path) -> None:
    first: Any = data(shapes).training_dataset()
    again: Any = data(shapes).training_dataset()
    torch.manual_seed(5)
    for key in ((0, 3), (2, 3), (0, 1)):
        assert torch.equal(first[key]["img"], again[key]["img"])
    assert not torch.equal(first[0, 3]["img"], first[1, 3]["img"])
    images, targets = collate([first[0, 0], first[0, 1]])
    assert images.shape == (2, 3, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    assert targets["box"].shape == (len(targets["label"]), 4)
    assert targets["masks"].shape == (2, SIZE // 4, SIZE // 4)


def test_their_figures_are_those_of_their_validator(shapes: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    from lightning_prune.detection.ultralytics.data_yaml import write_data_yaml
    from lightning_prune.detection.ultralytics.write_network import export_ultralytics

    L.seed_everything(0)
    module = UltralyticsModule(name="yolov8n", num_classes=2, image_size=SIZE, warmup_epochs=0)
    trainer = L.Trainer(
        max_epochs=12, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data(shapes, "detect"))
    yaml = write_data_yaml(whole_paths(read_layout(shapes)), tmp_path / "data.yaml")
    found = their_figures(module.network, yaml, SIZE, batch_size=4)
    export_ultralytics(module.eval(), tmp_path / "net.pt", torch.rand(1, 3, SIZE, SIZE))
    box = YOLO(tmp_path / "net.pt").val(
        data=str(yaml), imgsz=SIZE, batch=4, workers=0, device="cpu", plots=False, verbose=False
    ).box  # fmt: skip
    assert found["map50"] == pytest.approx(box.map50, abs=0.002)
    assert found["map50_95"] == pytest.approx(box.map, abs=0.002)


def test_a_network_that_segments_needs_masks() -> None:
    module = UltralyticsModule(name="yolov8n-seg", num_classes=2, image_size=SIZE)
    targets = {"image": torch.zeros(1), "label": torch.zeros(1), "box": torch.full((1, 4), 0.5)}
    with pytest.raises(ValueError, match=r"boxes without masks.*data=ultralytics"):
        module.training_step((torch.rand(1, 3, SIZE, SIZE), targets), 0)


def test_data_of_another_task(tmp_path: Path) -> None:
    yaml = draw_folder(tmp_path / "boxes")
    for path in (tmp_path / "boxes/labels").rglob("*.txt"):
        path.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"data\.yaml, `train`: .*supply a segment dataset"):
        data(yaml).setup("fit")
    data(yaml, "detect").setup("fit")
