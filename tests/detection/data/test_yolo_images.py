import os
from pathlib import Path

import pytest

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.yolo_images import list_images
from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_image, write_yolo

GOOD = "0 0.5 0.5 0.2 0.2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "set", {"train": [GOOD, GOOD], "val": [GOOD]})


def test_images_of_folders_lists_and_exports(folder: Path) -> None:
    write_image(folder / "images" / "train" / "deep" / "z.PNG")
    (folder / "images" / "train" / "notes.txt").write_text("no image")
    write_image(folder / "images" / "train" / "._000.jpg")
    (folder / "list.txt").write_text("./images/val/000.jpg\n\nimages/train/001.jpg\n")
    yaml = (
        "train: [images/train, images/val, images/train]\nval: list.txt\ntest: ../images/val\nnc: 2"
    )
    (folder / "data.yaml").write_text(yaml)
    layout = read_layout(folder)
    relative = [
        path.relative_to(folder.resolve()).as_posix() for path in list_images(layout, "train")
    ]
    assert relative == [
        "images/train/000.jpg",
        "images/train/001.jpg",
        "images/train/deep/z.PNG",
        "images/val/000.jpg",
    ]
    assert [path.name for path in list_images(layout, "val")] == ["000.jpg", "001.jpg"]
    # "../images/val" lies outside, the export meant "./images/val"
    assert [path.parent.name for path in list_images(layout, "test")] == ["val"]


def test_absolute_path_in_the_yaml(folder: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "elsewhere" / "my.yaml"
    yaml.parent.mkdir()
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnc: 2")
    assert len(list_images(read_layout(yaml), "train")) == 2


def test_empty_and_absent_splits(folder: Path) -> None:
    (folder / "images" / "empty").mkdir()
    (folder / "data.yaml").write_text("train: images/empty\nval: images/gone\nnc: 1")
    layout = read_layout(folder)
    with pytest.raises(DataError, match="the split `train` is empty: no image in images/empty"):
        list_images(layout, "train")
    with pytest.raises(DataError, match="`val: images/gone` does not exist"):
        list_images(layout, "val")


def names(root: Path, split: str = "train") -> tuple[list[str], Findings]:
    findings = Findings()
    found = list_images(read_layout(root), split, findings)
    return [path.relative_to(root.resolve() / "images").as_posix() for path in found], findings


def test_links_are_followed_and_nothing_is_read_twice(folder: Path, tmp_path: Path) -> None:
    train = folder / "images" / "train"
    write_image(tmp_path / "disk" / "10.jpg")
    write_image(train / "deep" / "5.jpg")
    (train / "disk").symlink_to(tmp_path / "disk", target_is_directory=True)
    (train / "again").symlink_to("deep", target_is_directory=True)
    (train / "loop").symlink_to(folder / "images", target_is_directory=True)
    (train / "self").symlink_to(".", target_is_directory=True)
    (train / "one.jpg").symlink_to(tmp_path / "disk" / "10.jpg")
    found, findings = names(folder)
    assert found == [
        f"train/{name}" for name in
        ("000.jpg", "001.jpg", "deep/5.jpg", "disk/10.jpg", "one.jpg")
    ]  # fmt: skip
    assert findings.places == {
        Problem.LINKED: [str(train.resolve() / name) for name in ("loop", "self", "again")]
    }


def test_what_is_left_out_is_noted(folder: Path) -> None:
    train = folder / "images" / "train"
    for name in ("__MACOSX/x.jpg", ".ipynb_checkpoints/y.jpg"):
        write_image(train / name)
    for name in ("._000.jpg", "a.DNG", "b.svg", "Thumbs.db", "c.txt"):
        (train / name).write_bytes(b"x")
    found, findings = names(folder)
    assert found == ["train/000.jpg", "train/001.jpg"]
    assert findings.count(Problem.HIDDEN_IMAGE) == 3
    assert findings.places[Problem.OTHER_FORMAT] == [
        str(train.resolve() / name) for name in ("a.DNG", "b.svg")
    ]


def test_phone_images_need_their_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = folder / "images" / "train"
    for path in train.glob("*.jpg"):
        path.rename(path.with_suffix(".HEIC"))
    readers = (
        "lightning_prune.data.walk_images.image_suffixes",
        "lightning_prune.detection.data.yolo_images.image_suffixes",
    )
    for reader in readers:
        monkeypatch.setattr(reader, lambda: {".jpg"})
    with pytest.raises(DataError, match=r"no image in images/train \(known are .jpg; there are 2"):
        names(folder)
    for reader in readers:
        monkeypatch.setattr(reader, lambda: {".jpg", ".heic"})
    assert names(folder)[0] == ["train/000.HEIC", "train/001.HEIC"]


LIST = "train: splits/train.txt\nval: images/val\nnames: [a]"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("images/train/000.jpg\nimages/train/001.jpg", "utf-8"),
        ("\n# comment\n./images/train/000.jpg  \r\n../images/train/001.jpg\r\n", "utf-8"),
        ("images\\train\\000.jpg\n.\\images\\train\\001.jpg\n", "utf-8-sig"),
        ('"images/train/000.jpg"\nimages/train/001.jpg', "utf-16"),
    ],
)
def test_lists_as_they_are_written(folder: Path, text: str, encoding: str) -> None:
    (folder / "splits").mkdir()
    (folder / "splits" / "train.txt").write_text(text, encoding=encoding)
    (folder / "data.yaml").write_text(LIST)
    found = list_images(read_layout(folder), "train")
    assert [os.path.realpath(path) for path in found] == [
        str(folder.resolve() / f"images/train/{index:03d}.jpg") for index in (0, 1)
    ]


def test_lists_name_what_is_not_there(folder: Path) -> None:
    (folder / "splits").mkdir()
    file = folder.resolve() / "splits" / "train.txt"
    (folder / "data.yaml").write_text(LIST)
    file.write_text("images/train/000.jpg\nimages/train/00.jpg\nimages/train/000.jpg\na\0b\n")
    found, findings = names(folder)
    assert found == ["train/000.jpg"]
    assert findings.places == {
        Problem.MISSING_IMAGE: [f"{file}:2: images/train/00.jpg", f"{file}:4: a\\x00b"],
        Problem.LISTED_TWICE: [f"{file}:3: images/train/000.jpg"],
    }
    for text, words in (
        (
            "imags/train/000.jpg",
            r"not one of 1 lines leads to an image. The first is .*train.txt:1",
        ),
        ("images/train", r"images/train \(a folder\)"),
        ('{"images": []}', "is JSON, no list of images"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=words):
            names(folder)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="a named pipe"):
        names(folder)


def test_an_entry_that_is_absent_says_what_is_there(folder: Path) -> None:
    (folder / "data.yaml").write_text("train: pictures\nval: images/val\nnames: [a]")
    with pytest.raises(DataError, match=r"holds data\.yaml, images, labels"):
        names(folder)
