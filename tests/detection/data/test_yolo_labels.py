import os
from pathlib import Path

import numpy as np
import pytest

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.detection.data.yolo_images import list_images
from lightning_prune.detection.data.yolo_labels import (
    label_path,
    note_labels_without_image,
    read_records,
)
from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_yolo

GOOD = "0 0.5 0.5 0.2 0.2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "set", {"train": [GOOD, GOOD], "val": [GOOD]})


def test_label_path() -> None:
    assert label_path(Path("/images/x/images/a.b.jpg")) == Path("/images/x/labels/a.b.txt")
    assert label_path(Path("/x/pictures/a.jpg")) == Path("/x/pictures/a.txt")


def records_of(folder: Path, *labels: str | None) -> tuple[list[tuple[list, list]], set, Findings]:
    root = write_yolo(folder / "labelled", {"train": labels, "val": [GOOD]})
    findings = Findings()
    records, unusable = read_records(list_images(read_layout(root), "train"), 2, findings)
    content = [(each.labels.tolist(), each.boxes.tolist()) for each in records]
    return content, {path.stem for path in unusable}, findings


def test_labels_are_read(tmp_path: Path) -> None:
    content, unusable, findings = records_of(
        tmp_path, "\ufeff1 0.5 0.5 0.2 0.2\n\n0.0 .25 .25 .1 .1  \n", "", None
    )
    assert content[0] == ([1, 0], [[0.5, 0.5, 0.2, 0.2], [0.25, 0.25, 0.1, 0.1]])
    assert content[1] == content[2] == ([], [])
    assert not unusable
    assert findings.count(Problem.NO_LABEL_FILE) == 1
    assert "002.jpg (no 002.txt)" in findings.message()


def test_polygon_becomes_its_box(tmp_path: Path) -> None:
    content, unusable, findings = records_of(tmp_path, "1 0.1 0.2 0.5 0.2 0.3 0.6")
    np.testing.assert_allclose(content[0][1], [[0.3, 0.4, 0.4, 0.4]])
    assert not unusable
    assert list(findings.places) == [Problem.POLYGON]


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.2 0.9",
        "cat 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "0 0.5 0.5 nan 0.2",
        "0 inf 0.5 0.2 0.2",
        "nan 0.5 0.5 0.2 0.2",
        "0,0.5,0.5,0.2,0.2",
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str) -> None:
    content, unusable, findings = records_of(tmp_path, f"{GOOD}\n{line}", GOOD)
    assert findings.count(Problem.MALFORMED) == 1
    assert "000.txt:2" in findings.message()
    assert unusable == {"000"}
    assert content[1][0] == [0]


def test_binary_label_file(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"train": [GOOD], "val": [GOOD]})
    (root / "labels" / "train" / "000.txt").write_bytes(b"\xff\xd8\xff\xe0")
    findings = Findings()
    _, unusable = read_records(list_images(read_layout(root), "train"), 2, findings)
    assert findings.count(Problem.UNREADABLE_LABELS) == 1
    assert "a JPEG image, not annotations" in findings.message()
    assert len(unusable) == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9", "6 columns (a prediction with its confidence"),
        ("0 0,5 0,5 0,2 0,2", "columns are separated by blanks, decimals by points"),
        ("cat 0.5 0.5 0.2 0.2", "a class is its number, from 0"),
        ("0 1e400 0.5 0.2 0.2", "a value is NaN or infinite"),
        ("0 0.1 nan 0.2 0.2 0.3 0.3", "a value is NaN or infinite"),
        ("1_0 0.5 0.5 0.2 0.2", "not numbers"),
        ("0 0.5 0.5 0.2 0.2 0.1 0.1 2", "8 columns"),
    ],
)
def test_malformed_lines_say_why(tmp_path: Path, line: str, why: str) -> None:
    _, unusable, findings = records_of(tmp_path, line, GOOD)
    assert unusable == {"000"}
    assert f"000.txt:1: {line!r} ({why}" in findings.message()


@pytest.mark.parametrize("line", ["0 .5 .5 .2 .2 .45 .45 .55 .45 .55 .55 0 0", "0 .5 .5 .2 .2"])
def test_poses_are_boxes_with_key_points(tmp_path: Path, line: str) -> None:
    root = write_yolo(tmp_path, {"train": [line, "0 .1 .1 .3 .1 .3 .3"], "val": [GOOD]})
    findings = Findings()
    images = list_images(read_layout(root), "train")
    records, unusable = read_records(images, 2, findings, key_points=(4, 2))
    assert records[0].boxes.tolist() == [[0.5, 0.5, 0.2, 0.2]]
    assert findings.count(Problem.KEY_POINTS) == (len(line.split()) == 13)
    assert [path.name for path in unusable] == ["001.jpg"]
    assert "7 columns; with kpt_shape [4, 2] 13" in findings.message()


@pytest.mark.parametrize(
    ("line", "likely"),
    [
        ("0 .5 .5 .2 .2 .45 .45 .55 .45 .55 .55 0 0", True),
        ("0 .7 .7 .8 .7 .9 .8 .8 .9 .7 .9 .6 .8", False),  # a hexagon
        ("0 .5 .4 .6 .5 .5 .6 .4 .5", False),  # a rotated box
    ],
)
def test_poses_without_their_key_are_suspected(tmp_path: Path, line: str, likely: bool) -> None:
    *_, findings = records_of(tmp_path, *[f"{line}\n{GOOD}\n{line}"] * 10)
    assert (findings.count(Problem.LIKE_POSES) == 1) == likely
    assert ("13 columns in each of 20 lines" in findings.message()) == likely
    *_, findings = records_of(tmp_path / "few", f"{line}\n" * 19)
    assert not findings.count(Problem.LIKE_POSES)


def test_rotated_boxes_and_polygons_and_boxes_mixed(tmp_path: Path) -> None:
    rotated = "1 0.5 0.4 0.6 0.5 0.5 0.6 0.4 0.5"
    content, _, findings = records_of(tmp_path, f"{GOOD}\n{rotated}\n0 .1 .1 .2 .1 .2 .3")
    assert content[0][0] == [0, 1, 0]
    np.testing.assert_allclose(
        content[0][1], [[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.15, 0.2, 0.1, 0.2]]
    )
    assert findings.count(Problem.POLYGON) == 2


def test_labels_in_other_encodings(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"train": [GOOD, GOOD], "val": [GOOD]})
    place = root / "labels" / "train"
    (place / "000.txt").write_text("1 0.5 0.5 0.2 0.2\n", encoding="utf-16")
    (place / "001.txt").write_bytes(b"1 .5 .5 .2 .2\r0 .5 .5 .2 .2\r\n")
    records, _ = read_records(list_images(read_layout(root), "train"), 2, Findings())
    assert [record.labels.tolist() for record in records] == [[1], [1, 0]]


def test_labels_that_are_no_files(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"train": [GOOD] * 4, "val": [GOOD]})
    place = root.resolve() / "labels" / "train"
    for index in range(3):
        (place / f"00{index}.txt").unlink()
    (place / "000.txt").mkdir()
    os.mkfifo(place / "001.txt")
    (place / "002.txt").write_text("version https://git-lfs.github.com/spec/v1\nsize 5\n")
    findings = Findings()
    _, unusable = read_records(list_images(read_layout(root), "train"), 2, findings)
    assert [path.name for path in sorted(unusable)] == ["000.jpg", "001.jpg", "002.jpg"]
    told = findings.places[Problem.UNREADABLE_LABELS]
    assert [each.removeprefix(str(place)).split(",")[0] for each in told] == [
        "/000.txt: a folder", "/001.txt: a named pipe",
        "/002.txt: a Git LFS pointer to 5 bytes",
    ]  # fmt: skip


@pytest.mark.parametrize("images", ["Images", "JPEGImages"])
def test_other_folders_of_images(folder: Path, images: str) -> None:
    (folder / "images").rename(folder / images)
    (folder / "data.yaml").write_text(f"train: {images}/train\nval: {images}/val\nnames: [a]")
    records, _ = read_records(list_images(read_layout(folder), "train"), 1, Findings())
    assert [record.labels.tolist() for record in records] == [[0], [0]]


def test_labels_beside_their_images(folder: Path) -> None:
    for path in (folder / "labels" / "train").iterdir():
        path.rename(folder / "images" / "train" / path.name)
    (folder / "labels" / "train").rmdir()
    records, _ = read_records(list_images(read_layout(folder), "train"), 2, Findings())
    assert [record.labels.tolist() for record in records] == [[0], [0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("annotations/train/000.txt", r"found .*annotations/train/000.txt: rename that folder"),
        ("Annotations/000.xml", r"found .*Annotations/000.xml \(Pascal VOC\): convert"),
    ],
)
def test_labels_elsewhere_are_named(folder: Path, name: str, words: str) -> None:
    (folder / "labels").rename(folder.parent / "gone")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(GOOD)
    with pytest.raises(DataError, match=words):
        read_records(list_images(read_layout(folder), "train"), 2, Findings())


def test_labels_named_after_the_whole_image(folder: Path) -> None:
    (folder / "labels" / "val" / "000.txt").rename(folder / "labels" / "val" / "000.jpg.txt")
    with pytest.raises(DataError, match=r"there is 000\.jpg\.txt: name it 000\.txt"):
        read_records(list_images(read_layout(folder), "val"), 2, Findings())


def test_labels_without_image_are_noted(folder: Path) -> None:
    for name in ("classes", "009"):
        (folder / "labels" / "train" / f"{name}.txt").write_text(GOOD)
    findings = Findings()
    note_labels_without_image(list_images(read_layout(folder), "train"), findings)
    place = folder.resolve() / "labels" / "train" / "009.txt"
    assert findings.places == {Problem.NO_IMAGE: [str(place)]}


def test_label_folder_missing(folder: Path) -> None:
    (folder / "labels" / "val").rename(folder / "labels" / "validation")
    layout = read_layout(folder)
    with pytest.raises(DataError, match=r"label folder missing: .*labels/val\. The labels of"):
        read_records(list_images(layout, "val"), 2, Findings())


def test_no_label_file_at_all(folder: Path) -> None:
    (folder / "labels" / "val" / "000.txt").unlink()
    layout = read_layout(folder)
    with pytest.raises(DataError, match="no label file for any of 1 images"):
        read_records(list_images(layout, "val"), 2, Findings())
