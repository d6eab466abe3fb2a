"""Folders of images: layouts, what is said and refused, crops and orders that resume."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.data.sampler import Draw
from lightning_prune.errors import DataError
from lightning_prune.vision.image_folder import ImageFolderData
from tests.vision.class_folders import write_classes, write_image, write_splits


def labels(data: ImageFolderData, split: str) -> list[int]:
    return [label for _, label in data.dataset(split).files]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_splits_are_folders(tmp_path: Path, val: str):
    data = ImageFolderData(write_splits(tmp_path, val), image_size=16)
    assert data.names == ["cat", "dog"]
    assert (data.num_classes, data.in_channels, data.splits) == (2, 3, ("train", "val", "test"))
    assert labels(data, "train") == [0] * 6 + [1] * 4
    assert labels(data, "val") == [0, 0, 1, 1]
    assert labels(data, "test") == [0, 1, 1]


def test_batches_are_images_and_labels(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path), image_size=16, batch_size=4)
    images, target = next(iter(data.val_dataloader()))
    assert (images.shape, images.dtype) == ((4, 3, 16, 16), torch.float32)
    assert 0 <= images.min() < 0.2
    assert 0.8 < images.max() <= 1
    assert (target.tolist(), target.dtype) == ([0, 0, 1, 1], torch.int64)


def test_images_may_lie_deeper_in_a_class(tmp_path: Path):
    write_image(write_splits(tmp_path) / "train/cat/more/x.jpg", 7)
    assert labels(ImageFolderData(tmp_path), "train").count(0) == 7


def test_class_folders_alone_are_divided(tmp_path: Path):
    data = ImageFolderData(
        write_classes(tmp_path, {"b": 20, "a": 10}), val_fraction=0.2, test_fraction=0.1
    )
    files = {split: data.dataset(split).files for split in data.splits}
    assert {split: len(part) for split, part in files.items()} == {"train": 21, "val": 6, "test": 3}
    assert [sum(f.label == 0 for f in part) for part in files.values()] == [7, 2, 1]
    assert len({file.path for part in files.values() for file in part}) == 30


def test_what_is_held_out_depends_on_its_own_seed_and_class_alone(tmp_path: Path):
    write_classes(tmp_path, {"b": 20, "c": 20})

    def held_out(**options: int) -> list[str]:
        files = ImageFolderData(tmp_path, **options).dataset("val").files
        return [str(file.path) for file in files if file.path.parent.name == "b"]

    first = held_out(seed=0)
    assert held_out(seed=1) == first
    assert held_out(split_seed=1) != first
    write_classes(tmp_path, {"a": 5})
    assert held_out() == first


def test_without_a_validation_folder_training_images_are_held_out(tmp_path: Path):
    shutil.rmtree(write_splits(tmp_path) / "val")
    data = ImageFolderData(tmp_path, val_fraction=0.25)
    assert (labels(data, "val"), len(labels(data, "train")), labels(data, "test")) == (
        [0, 0, 1], 7, [0, 1, 1],
    )  # fmt: skip


def test_without_a_test_folder_validation_is_tested_on(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path, test=None))
    assert data.splits == ("train", "val")
    assert labels(data, "test") == labels(data, "val")


def empty(root: Path) -> None:
    pass


def only_val(root: Path) -> None:
    write_classes(root / "val", {"cat": 1, "dog": 1})


def no_classes(root: Path) -> None:
    write_image(root / "train/x.png", 0)
    write_image(root / "val/x.png", 0)


def one_class(root: Path) -> None:
    write_classes(root, {"cat": 3})


def one_level_more(root: Path) -> None:
    write_splits(root / "dataset")


def both_names(root: Path) -> None:
    write_classes(write_splits(root) / "valid", {"cat": 1, "dog": 1})


def detection(root: Path) -> None:
    write_image(root / "images/train/x.png", 0)
    write_image(root / "labels/x.png", 0)


def too_few(root: Path) -> None:
    write_classes(root, {"cat": 2, "dog": 3})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, r"holds no images in class folders: an image is CLASS/x.jpg"),
        (only_val, r"has val and no train: give the folder that holds train"),
        (no_classes, r"train has no class folders: an image is train/CLASS/x.jpg"),
        (one_class, r"has one class folder with images, cat; a classifier needs two$"),
        (one_level_more, r"one class folder with images, dataset; .*data.root=\S+/dataset meant"),
        (both_names, r"has both val and valid: which one is the val split"),
        (detection, r"has images, labels, a data set for detection \(data=yolo_folder"),
        (too_few, r"10% of so few images leaves none to validate on"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, make, message: str):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        ImageFolderData(tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="there is no such folder"):
        ImageFolderData(tmp_path / "no")
    with pytest.raises(DataError, match="is a file: give the folder of the images, unpacked"):
        ImageFolderData(write_image(tmp_path / "x.png", 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 4}, r"image_size=4: pass an integer in \[8, 16384\] or null, pixels"),
        ({"val_fraction": 0}, r"val_fraction=0: pass a number in \(0, 1\)"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"scale": (0, 1)}, "scale=.*fractions of the image's area"),
        ({"ratio": (2, 1)}, "ratio=.*width / height"),
        ({"channels": 4}, "channels=4: pass 1 or 3"),
        ({"crop_fraction": 0}, r"crop_fraction=0: pass a number in \(0, 1\]"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ImageFolderData(write_splits(tmp_path), **options)


def test_everything_odd_is_said_once(tmp_path: Path):
    root = write_splits(tmp_path)
    (root / "train/empty").mkdir()
    write_image(root / "train/loose.png", 1)
    write_classes(root / "train", {"bird": 1, "Cat ": 1}, 5)
    shutil.copy(root / "train/cat/000.png", root / "val/cat/000.png")
    frames = [Image.new("L", (9, 9), value) for value in (0, 200)]
    frames[0].save(root / "train/dog/two.gif", save_all=True, append_images=frames[1:])
    data = ImageFolderData(root)
    with pytest.warns(UserWarning, match="the data set has peculiarities") as found:
        data.setup("fit")
    (warning,) = found
    text = str(warning.message)
    for part in (
        "1 x class folder without an image (left out)\n      " + str(root / "train/empty"),
        "1 x image beside the class folders (left out)",
        "1 x class whose name differs from another's in case or spaces only",
        "1 x image that is in the training split too\n      " + str(root / "val/cat/000.png"),
        "4 x class of the training split that is absent here",
        "1 x file of several images (the first is taken)",
    ):
        assert part in text
    assert "empty" not in data.names


def test_damaged_images_and_unknown_classes_stop_the_run_or_are_left_out(tmp_path: Path):
    root = write_splits(tmp_path)
    torn = root / "train/cat/001.png"
    torn.write_bytes(torn.read_bytes()[:200])
    write_classes(root / "val", {"bird": 3})
    with pytest.raises(DataError) as error:
        ImageFolderData(root).setup("fit")
    assert f"1 x corrupt or unreadable image\n      {torn}" in str(error.value)
    assert "val: 'bird', 3 images" in str(error.value)
    assert "clipped" not in str(error.value)
    data = ImageFolderData(root, on_error="skip")
    with pytest.warns(UserWarning, match="4 images are left out"):
        data.setup("fit")
    assert (labels(data, "train").count(0), labels(data, "val")) == (5, [0, 0, 1, 1])


def test_pointers_of_git_lfs_are_named(tmp_path: Path):
    for path in (write_splits(tmp_path) / "train").rglob("*.png"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(DataError, match=r"10 of 10 images are not images: .*Git LFS"):
        ImageFolderData(tmp_path, on_error="skip").setup("fit")


def test_crops_depend_on_seed_epoch_and_index_alone(tmp_path: Path):
    def image(seed: int, epoch: int, index: int) -> torch.Tensor:
        data = ImageFolderData(tmp_path, image_size=16, seed=seed)
        np.random.seed(torch.randint(99, ()))  # whatever the global states are
        return data.train_dataloader().dataset[Draw(epoch, index)][0]

    write_splits(tmp_path)
    assert torch.equal(image(0, 3, 2), image(0, 3, 2))
    others = [image(1, 3, 2), image(0, 4, 2), image(0, 3, 1)]
    assert not any(torch.equal(image(0, 3, 2), other) for other in others)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_training_order_continues_within_an_epoch(tmp_path: Path, workers: int):
    options = {"image_size": 16, "batch_size": 3, "num_workers": workers}
    write_splits(tmp_path)
    whole = ImageFolderData(tmp_path, **options).train_dataloader()
    expected = [images for images, _ in whole]
    first, rest = (ImageFolderData(tmp_path, **options).train_dataloader() for _ in range(2))
    batches = iter(first)
    found = [next(batches)[0] for _ in range(2)]
    rest.load_state_dict(first.state_dict())
    found += [images for images, _ in rest]
    assert len(found) == len(expected) == 4
    assert all(map(torch.equal, found, expected))


def test_collection_is_training_images_as_in_evaluation(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path), image_size=16, batch_size=10)
    images, target = next(iter(data.collection_dataloader()))
    assert target.tolist() == [0] * 6 + [1] * 4
    own = data.dataset("train")
    assert torch.equal(images[3], own[3][0] / 255)


def test_grey_values_are_one_channel(tmp_path: Path):
    data = ImageFolderData(write_splits(tmp_path), image_size=16, channels=1)
    assert data.in_channels == 1
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert next(iter(loader))[0].shape[1:] == (1, 16, 16)


def test_the_model_says_how_images_are_cut_unless_the_data_do(tmp_path: Path):
    class Trainer:
        class lightning_module:
            evaluation_view = {  # noqa: RUF012
                "image_size": 24, "crop_fraction": 0.5, "interpolation": "nearest", "squash": True,
            }  # fmt: skip

    data = ImageFolderData(write_splits(tmp_path), crop_fraction=0.75)
    data.trainer = Trainer()
    view = data.dataset("val").view
    assert (view.image_size, view.crop_fraction) == (24, 0.75)
    assert (view.interpolation, view.squash) == ("nearest", True)
    data.trainer = None
    assert data.dataset("val").view.image_size == 224
