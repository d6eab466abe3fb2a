import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune.detection.data.letterbox import letterbox
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_yolo

GOOD = "0 0.5 0.5 0.2 0.2"


def make(root: Path, **options: Any) -> YoloFolderDataModule:
    return YoloFolderDataModule(root, **{"image_size": 64, "batch_size": 2, **options})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = {"train": [GOOD, "1 0.3 0.4 0.1 0.2\n0 0.7 0.7 0.3 0.3", ""], "val": [GOOD]}
    return write_yolo(tmp_path / "set", labels)


def test_known_before_setup(folder: Path) -> None:
    module = make(folder)
    assert (module.names, module.num_classes, module.image_size) == (["cat", "dog"], 2, 64)
    assert module.splits == ("train", "val")


def test_evaluation_batches_are_letterboxed(folder: Path) -> None:
    module = make(folder, batch_size=3)
    module.setup("fit")
    ((images, targets),) = module.collection_dataloader()
    source = module.dataset("train").source
    for index in range(3):
        square = np.asarray(letterbox(source.image(index), 64).image)
        np.testing.assert_array_equal(images[index].permute(1, 2, 0).numpy() * 255, square)
    assert targets["image"].tolist() == [0, 1, 1]
    assert targets["label"].tolist() == [0, 1, 0]
    # images of 64 x 48 lie 8 pixels below the top
    expected = [[0.5, 0.5, 0.2, 0.15], [0.3, 0.425, 0.1, 0.15], [0.7, 0.65, 0.3, 0.225]]
    torch.testing.assert_close(targets["box"], torch.tensor(expected))


def test_cached_images_are_the_same(folder: Path) -> None:
    plain, cached = make(folder), make(folder, cache_images=True)
    for module in (plain, cached):
        module.setup("fit")
    for first, second in zip(plain.train_dataloader(), cached.train_dataloader(), strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1]["box"], second[1]["box"])
    assert cached.train_dataloader().dataset._images is cached.dataset("train")._images  # type: ignore[attr-defined]


def tear_image(root: Path) -> None:
    image = root / "images" / "train" / "001.jpg"
    image.write_bytes(image.read_bytes()[:-900])


def label(line: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "labels" / "train" / "001.txt").write_text(line)

    return write


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "corrupt image": (tear_image, r"1 x corrupt or unreadable image\n.*001\.jpg: .*truncated"),
    "box outside": (label("0 1.2 0.5 0.1 0.1"), r"1 x box outside.*\n.*001\.txt:1: .*1\.2 0\.5"),
    "class id": (label("2 0.5 0.5 0.1 0.1"), r"class id out of range\n.*class 2, 0-1 known"),
    "no area": (label("1 0.5 0.5 0 0.1"), r"1 x box without area\n.*001\.txt:1"),
    "malformed": (label("a cat"), r"1 x malformed annotation\n.*001\.txt:1: 'a cat'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_stops_before_the_first_epoch(folder: Path, damage: str) -> None:
    inflict, message = DAMAGES[damage]
    inflict(folder)
    with pytest.raises(DataError, match=message):
        make(folder).setup("fit")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_can_be_skipped(folder: Path, damage: str) -> None:
    inflict, message = DAMAGES[damage]
    inflict(folder)
    module = make(folder, on_error="skip")
    with pytest.warns(UserWarning, match=message):
        module.setup("fit")
    assert len(module.dataset("train")) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.setup("fit")  # said once


def test_all_damage_in_one_message(folder: Path) -> None:
    tear_image(folder)
    (folder / "labels" / "val" / "000.txt").write_text("9 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError) as caught:
        make(folder).setup("fit")
    assert "001.jpg" in str(caught.value)
    assert "val/000.txt:1: class 9" in str(caught.value)


def test_nothing_left_after_skipping(folder: Path) -> None:
    (folder / "labels" / "val" / "000.txt").write_text("9 0.5 0.5 0.1 0.1")
    with (
        pytest.warns(UserWarning, match="1 images are left out"),
        pytest.raises(DataError, match="no usable image is left in `val`"),
    ):
        make(folder, on_error="skip").setup("fit")


def test_training_without_any_object(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"train": ["", ""], "val": [GOOD]})
    with pytest.raises(DataError, match="no object in any training image"):
        make(root).setup("fit")


def test_image_without_label_file_is_background(folder: Path) -> None:
    (folder / "labels" / "train" / "001.txt").unlink()
    module = make(folder)
    with pytest.warns(UserWarning, match=r"1 x image without label file.*\n.*001\.jpg"):
        module.setup("fit")
    assert len(module.dataset("train")) == 3


def test_validation_alone_does_not_read_the_training_split(folder: Path) -> None:
    tear_image(folder)
    module = make(folder)
    module.setup("validate")
    assert len(module.val_dataloader()) == 1


def test_a_pose_data_set_trains_on_its_boxes(tmp_path: Path) -> None:
    yaml = "train: images/train\nval: images/val\nkpt_shape: [4, 2]\nnames: [a, b]\n"
    line = "0 0.5 0.5 0.2 0.2 0.45 0.45 0.55 0.45 0.55 0.55 0 0"
    module = make(write_yolo(tmp_path, {"train": [line], "val": [line]}, yaml))
    with pytest.warns(UserWarning, match=r"2 x object with key points \(ignored; its box is taken"):
        module.setup("fit")
    np.testing.assert_allclose(module.dataset("train").source.objects(0)[1], [[0.5, 0.5, 0.2, 0.2]])


def test_what_is_left_out_is_said_with_a_count(folder: Path) -> None:
    (folder / "images" / "train" / "a.dng").write_bytes(b"II*\0")
    (folder / "images" / "train" / "001.jpg").unlink()
    module = make(folder)
    with pytest.warns(UserWarning, match="format that is not read") as caught:
        module.setup("fit")
    assert len(module.dataset("train")) == 2
    assert "1 x label file whose image is not there" in str(caught[0].message)


def test_unknown_policy(folder: Path) -> None:
    with pytest.raises(ValueError, match="on_error='ignore': pass 'raise' or 'skip'"):
        make(folder, on_error="ignore")


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("bccd", 3, {"train": (205, 2804), "val": (87, 1137)}),
        ("coco_open", 80, {"train": (33, 243), "val": (27, 173)}),
    ],
)
def test_real_photographs(
    shared: Path, name: str, classes: int, expected: dict[str, tuple[int, int]]
) -> None:
    module = YoloFolderDataModule(shared / "data" / name)
    assert module.num_classes == classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate boxes, if any
        module.setup("fit")
    for split, (images, boxes) in expected.items():
        source = module.dataset(split).source
        assert len(source) == images
        assert sum(len(source.objects(index)[0]) for index in range(images)) == boxes
    images, targets = next(iter(module.train_dataloader()))
    assert images.shape == (16, 3, 640, 640)
    corners = targets["box"][:, :2] - targets["box"][:, 2:] / 2
    assert corners.min() >= -1e-6
