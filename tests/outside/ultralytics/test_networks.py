"""Networks of theirs: read as they are, cut, and given back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics import RTDETR, YOLO

from lightning_prune import PruningPlan, build_groups, cut_channels
from lightning_prune.detection.ultralytics.module import UltralyticsModule
from lightning_prune.detection.ultralytics.write_network import export_ultralytics
from tests.outside.ultralytics.conftest import scrambled

NAMES = ["cell", "ring", "star"]
SIZE = 64


def built(name: str, **options: Any) -> UltralyticsModule:
    module = UltralyticsModule(
        name=name, num_classes=3, image_size=SIZE, names=NAMES, **options
    ).eval()
    scrambled(module.network)
    return module


def halved(module: UltralyticsModule) -> UltralyticsModule:
    groups = build_groups(module, torch.rand(2, 3, SIZE, SIZE))
    keep = {
        name: torch.arange(max(group.step, group.channels // 2 // group.step * group.step))
        for name, group in groups.items()
    }
    plan = PruningPlan(keep, {name: group.channels for name, group in groups.items()})
    cut_channels(module, groups, plan)
    return module


def outputs(module: UltralyticsModule, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = module(images)
    return list(found) if isinstance(found, tuple) else [found]


NETWORKS = ["yolov8n", "yolo11n", "yolo26n", "yolov10n", "yolov5n", "rtdetr-l"]


@pytest.mark.parametrize("name", NETWORKS)
def test_reads_their_file_as_it_is(name: str, tmp_path: Path) -> None:
    kind = RTDETR if name.startswith("rtdetr") else YOLO
    theirs = scrambled(kind(f"{name}.yaml").model).eval()
    theirs.names = {index: f"thing {index}" for index in range(80)}
    path = tmp_path / "best.pt"
    torch.save({"model": theirs, "ema": None, "train_args": {"imgsz": SIZE}, "version": "8"}, path)
    module = UltralyticsModule(weights=str(path)).eval()
    assert module.pretrained
    assert (module.hparams["num_classes"], module.hparams["image_size"]) == (80, SIZE)
    assert module.hparams["names"][79] == "thing 79"
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = theirs(images)[0]
    found = outputs(module, images)[0]
    if name.startswith("rtdetr"):  # theirs has chosen the best of all pairs of box and class
        scores = found[:, 4:].flatten(1).topk(expected.shape[1]).values
        torch.testing.assert_close(scores, expected[..., 4].sort(1, descending=True).values)
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n", "yolov8n-seg"])
def test_given_back_and_read_again(name: str, tmp_path: Path) -> None:
    module = halved(built(name))
    path = tmp_path / "pruned.pt"
    images = torch.rand(2, 3, SIZE, SIZE)
    assert export_ultralytics(module, path, images, size_step=32) < 1e-6
    theirs = YOLO(path).model
    count = sum(p.numel() for p in module.parameters())
    assert sum(p.numel() for p in theirs.parameters()) == count
    again = UltralyticsModule(weights=str(path)).eval()
    assert again.pretrained
    assert again.hparams["names"] == NAMES
    for one, other in zip(outputs(module, images), outputs(again, images), strict=True):
        assert torch.equal(one, other)
    # What its exporters do with it: merge norms, split blocks by their numbers.
    with torch.no_grad():
        before = theirs.float().eval()(images)[0]
        before = before[0] if isinstance(before, tuple | list) else before
        for block in theirs.modules():
            if hasattr(block, "forward_split"):
                block.forward = block.forward_split
        after = theirs.fuse(verbose=False)(images)[0]
        after = after[0] if isinstance(after, tuple | list) else after
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_a_transformer_after_images_of_another_size(tmp_path: Path) -> None:
    """Its decoder remembers a grid, and for which shapes: passes of ours must not part the two."""
    module = built("rtdetr-l")
    images = torch.rand(1, 3, SIZE, SIZE)
    outputs(module, torch.rand(1, 3, SIZE + 32, SIZE + 32))
    (before,) = outputs(module, images)
    groups = build_groups(module, images, attributes=False)
    assert len(groups) > 50
    assert torch.equal(outputs(module, images)[0], before)
    halved(module)
    assert export_ultralytics(module, tmp_path / "pruned.pt", images) < 1e-5
    again = UltralyticsModule(weights=str(tmp_path / "pruned.pt")).eval()
    assert torch.equal(outputs(again, images)[0], outputs(module, images)[0])


def test_their_training_keeps_the_widths(shapes: Path, tmp_path: Path) -> None:
    from lightning_prune import pruned_trainer

    module = UltralyticsModule(
        name="yolov8n-seg", num_classes=2, image_size=SIZE, names=["triangle", "square"]
    ).eval()
    halved(module)
    path = tmp_path / "pruned.pt"
    export_ultralytics(module, path, torch.rand(1, 3, SIZE, SIZE))
    options: dict[str, Any] = {
        "data": str(shapes), "epochs": 1, "imgsz": SIZE, "batch": 4, "workers": 0, "device": "cpu",
        "plots": False, "verbose": False, "project": str(tmp_path), "amp": False, "exist_ok": True,
    }  # fmt: skip
    with pytest.raises(KeyError, match=r"was pruned, .*trainer=lightning_prune\.pruned_trainer"):
        YOLO(path).train(name="theirs", **options)
    YOLO(path).train(name="ours", trainer=pruned_trainer, **options)
    trained = YOLO(tmp_path / "ours/weights/best.pt").model
    shapes_of = {name: value.shape for name, value in module.network.state_dict().items()}
    assert {name: value.shape for name, value in trained.state_dict().items()} == shapes_of
    # and may be pruned again
    assert UltralyticsModule(weights=str(tmp_path / "ours/weights/best.pt")).pretrained


def test_says_what_it_does_not_prune(tmp_path: Path) -> None:
    path = tmp_path / "pose.pt"
    torch.save({"model": YOLO("yolov8n-pose.yaml").model, "train_args": {}}, path)
    with pytest.raises(ValueError, match="holds a pose network: only DetectionModel"):
        UltralyticsModule(weights=str(path))
    with pytest.raises(ValueError, match=r"yolo99n.*knows no such network"):
        UltralyticsModule(name="yolo99n")
    with pytest.raises(ValueError, match="ends in Classify"):
        UltralyticsModule(name="yolov8n-cls")
    with pytest.raises(ValueError, match=r"pass weights=best\.pt or name=yolo11n"):
        UltralyticsModule()


def test_other_activations_of_a_file_are_kept(tmp_path: Path) -> None:
    theirs = YOLO("yolov8n.yaml").model
    theirs.model[9].cv1.act = torch.nn.Identity()  # as 8.4.0 builds it
    theirs.model[0].act = torch.nn.LeakyReLU(0.1)
    scrambled(theirs).eval()
    torch.save({"model": theirs, "train_args": {}}, tmp_path / "best.pt")
    module = UltralyticsModule(weights=str(tmp_path / "best.pt")).eval()
    assert module.hparams["activations"] == {
        "model.0.act": "leaky_relu(0.1)", "model.9.cv1.act": "identity"
    }  # fmt: skip
    images = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(module(images), theirs(images)[0])


def test_a_network_that_computes_otherwise_is_refused(tmp_path: Path) -> None:
    theirs = YOLO("yolov8n.yaml").model
    theirs.model[0].bn.eps = 0.5
    torch.save({"model": theirs, "version": "8.9.1", "train_args": {}}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"model\.0\.bn has eps=0\.5.*ultralytics 8\.9\.1 wrote"):
        UltralyticsModule(weights=str(tmp_path / "best.pt"))


def test_starts_from_checkpoints_of_its_own(tmp_path: Path) -> None:
    images = torch.rand(1, 3, SIZE, SIZE)
    for module in (built("yolo11n"), halved(built("yolo11n"))):
        content = {
            "state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams),
            "pytorch-lightning_version": "2.6.0",
        }  # fmt: skip
        torch.save(content, tmp_path / "last.ckpt")
        again = UltralyticsModule(weights=str(tmp_path / "last.ckpt")).eval()
        assert again.pretrained
        assert again.hparams["names"] == NAMES
        assert torch.equal(outputs(again, images)[0], outputs(module, images)[0])
