"""Predictions on images as people hold them; the oracle is the validation of the same images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.data.images import ImageError, read_image
from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.predict.module_detector import detector_of, options_of
from lightning_prune.detection.predict.predict_images import predict_images

SIZE = 320


@pytest.fixture(scope="module")
def detector(shared: Path) -> DetectionModule:
    weights = shared / "data/yolov8n_coco/yolov8n_coco.safetensors"
    return DetectionModule(weights=str(weights), image_size=SIZE)


@pytest.fixture(scope="module")
def photo(shared: Path) -> Path:
    return sorted((shared / "data/coco_open/images/val").iterdir())[2]


def same(one: Any, other: Any) -> bool:
    return all(
        torch.equal(getattr(one, part), getattr(other, part))
        for part in ("boxes", "scores", "labels")
    )


@pytest.mark.parametrize(("folder", "images"), [("coco_open", 32), ("bccd", 8)])
def test_a_folders_predictions_give_the_map_of_its_validation(
    detector: DetectionModule, shared: Path, folder: str, images: int
):
    data = YoloFolderDataModule(
        str(shared / "data" / folder), image_size=SIZE, batch_size=8, decode_check=False
    )
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        limit_val_batches=images // 8,
    )  # fmt: skip
    (expected,) = trainer.validate(detector, data, verbose=False)
    source = data.dataset("val").source
    records = source.records[:images]
    options = replace(options_of(detector), confidence=0.001, multi_label=True)
    for clip, tolerance in ((False, 1e-6), (True, 2e-3)):
        found = predict_images(
            detector_of(detector), [r.path for r in records], replace(options, clip=clip)
        )
        metric = DetectionAveragePrecision()
        for index, seen in enumerate(found):
            labels, boxes = map(torch.from_numpy, source.objects(index))
            target = {"image": torch.zeros_like(labels), "label": labels, "box": boxes}
            rows = torch.cat([seen.boxes, seen.scores[:, None], seen.labels[:, None]], dim=1)
            metric.update_batch([rows], target, (1, 3, seen.height, seen.width))
        values = metric.summary()
        for name in ("map50", "map50_95"):
            assert float(values[name]) == pytest.approx(expected[f"val/{name}"], abs=tolerance)
    assert folder == "bccd" or expected["val/map50"] > 0.5


def test_one_image_in_every_form(detector: DetectionModule, photo: Path):
    detector.train()
    array = read_image(photo)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    (expected,) = detector.predict_images(photo)
    assert len(expected) > 1
    assert (expected.width, expected.height) == (array.shape[1], array.shape[0])
    forms = [str(photo), Image.open(photo), array, array[:, ::-1][:, ::-1], tensor, tensor / 255.0]
    for form in forms:
        (found,) = detector.predict_images(form)
        assert same(found, expected)
    found = detector.predict_images([*forms[:2], tensor[None].expand(2, -1, -1, -1)], batch_size=3)
    assert len(found) == 4
    for one in found:
        torch.testing.assert_close(one.boxes, expected.boxes, atol=1e-2, rtol=0)
    assert detector.training
    assert all(part.training for part in detector.modules())
    assert detector.predict_images([]) == []


def test_boxes_follow_the_image(detector: DetectionModule, photo: Path):
    small = Image.open(photo)
    turned = small.transpose(Image.Transpose.ROTATE_90)
    (straight,) = detector.predict_images(small)
    turned.getexif()[0x0112] = 6  # to be shown turned clockwise by a quarter: as it was
    (upright,) = detector.predict_images(turned)
    assert (upright.width, upright.height) == small.size
    assert same(upright, straight)
    (large,) = detector.predict_images(small.resize((small.width * 2, small.height * 2)))
    count = min(len(large), 2)
    assert large.labels[:count].tolist() == straight.labels[:count].tolist()
    assert (large.boxes[:count] / 2 - straight.boxes[:count]).abs().max() < 8


def test_options(detector: DetectionModule, photo: Path):
    names = [f"kind {index}" for index in range(80)]
    detector.hparams["names"] = names
    try:
        (everything,) = detector.predict_images(photo, confidence=0.01)
        first = names[int(everything.labels[0])]
        (one_class,) = detector.predict_images(photo, confidence=0.01, classes=[first])
    finally:
        detector.hparams["names"] = None
    mine = everything.labels == everything.labels[0]
    assert 0 < len(one_class) == int(mine.sum()) < len(everything)
    assert one_class.class_names == [first] * len(one_class)
    torch.testing.assert_close(one_class.boxes, everything.boxes[mine])
    (two,) = detector.predict_images(photo, confidence=0.01, max_detections=2)
    assert torch.equal(two.boxes, everything.boxes[:2])
    (smaller,) = detector.predict_images(photo, image_size=160)
    assert not torch.equal(smaller.boxes[:1], everything.boxes[:1])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((8, 8, 3)), {}, r"of float64 of shape \(8, 8, 3\): pass RGB as a uint8 array"),
        (np.zeros((3, 8, 8), np.uint8), {}, r"channels first take array.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 4), np.uint8), {}, "drop the fourth channel"),
        (np.zeros((0, 8, 3), np.uint8), {}, r"shape \(0, 8, 3\)"),
        (torch.full((3, 8, 8), 255.0), {}, r"values from 255 to 255: pass uint8"),
        (torch.full((3, 8, 8), torch.nan), {}, r"values from nan"),
        (torch.zeros(8, 8, 3), {}, r"image tensor of shape \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), {}, "tensor of torch.int64"),
        (Image.new("F", (8, 8)), {}, "floating-point pixels"),
        ([], {"confidence": 1.0}, r"confidence=1.0: pass a number in \[0, 1\), a probability"),
        ([], {"iou": -1}, "iou=-1"),
        ([], {"max_detections": 0}, "max_detections=0: pass an integer of at least 1"),
        ([], {"batch_size": 0}, "batch_size=0: pass at least 1"),
        ([], {"image_size": 100}, "image_size=100: pass a multiple of 32"),
        ([], {"classes": ["sheep", "ship"]}, "classes: 'ship' is no class .*sheep, goat"),
        ([], {"classes": [2]}, "numbers from 0 to 1"),
    ],
)
def test_refusals(images: Any, options: dict[str, Any], message: str):
    module = DetectionModule(2, image_size=32, names=["sheep", "goat"])
    with pytest.raises(ValueError, match=message):
        module.predict_images(images, **options)


def test_other_refusals(tmp_path: Path):
    module = DetectionModule(2, image_size=32)
    with pytest.raises(TypeError, match="an image of type int: pass a path"):
        module.predict_images(7)
    with pytest.raises(ImageError, match=r"nowhere.jpg: "):
        module.predict_images(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="no image in"):
        module.predict_images(tmp_path)
    with pytest.raises(ValueError, match="images of 5 channels"):
        DetectionModule(2, image_size=32, in_channels=5).predict_images([])


def test_grey_networks_and_grey_images():
    torch.manual_seed(0)
    module = DetectionModule(2, image_size=32, in_channels=1)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (24, 32), dtype=np.uint8)
    colour = np.stack([grey, grey, grey], axis=2)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    found = module.predict_images([grey, colour, deep], confidence=0.0, max_detections=5)
    assert len(found[0]) == 5
    for one in found[1:]:
        torch.testing.assert_close(one.boxes, found[0].boxes)
    module = DetectionModule(2, image_size=32)
    rgba = Image.fromarray(np.dstack([colour, 255 - grey]))
    palette = Image.fromarray(colour).convert("P")
    first, second, third = module.predict_images([rgba, colour, palette], confidence=0.0)
    assert same(first, second)
    assert len(third) > 0


def test_random_states_and_gradients_stay():
    module = DetectionModule(1, image_size=32).double()
    state = torch.random.get_rng_state()
    module.predict_images(np.zeros((9, 40, 3), np.uint8), confidence=0.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled()
    with torch.inference_mode():
        (found,) = module.predict_images(np.zeros((9, 40, 3), np.uint8), confidence=0.0)
    assert found.boxes.dtype == torch.float32
    assert found.boxes.min() >= 0
    assert bool((found.boxes <= torch.tensor([40.0, 9.0, 40.0, 9.0])).all())
