from pathlib import Path

import numpy as np
import pytest

from lightning_prune.data.checks import DataError, Findings, Problem
from lightning_prune.data.yolo_images import list_images
from lightning_prune.data.yolo_labels import label_path, read_records
from lightning_prune.data.yolo_layout import read_layout
from tests.data.folders import write_image, write_yolo

GOOD = "0 0.5 0.5 0.2 0.2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "set", {"train": [GOOD, GOOD], "val": [GOOD]})


def test_layout(folder: Path) -> None:
    for root in (folder, folder / "data.yaml"):
        layout = read_layout(root)
        assert layout.names == ["cat", "dog"]
        assert layout.base == folder.resolve()
        assert layout.entries == {"train": ["images/train"], "val": ["images/val"]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: {0: cat, 1: dog}", ["cat", "dog"]),
        ("nc: 2\nnames: {1: dog, 0: cat}", ["cat", "dog"]),
        ("names: [1, 2]", ["1", "2"]),
        ("nc: 3", ["class0", "class1", "class2"]),
    ],
)
def test_names(folder: Path, names: str, expected: list[str]) -> None:
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\n{names}\n")
    assert read_layout(folder).names == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("val: images/val\nnames: [a]", "no entry `train`: it has val, names"),
        ("train: images/train\nnames: [a]", "no entry `val`"),
        ("train: a\nval: b", "`names` is None: give a list of class names"),
        ("train: a\nval: b\nnames: [a, b]\nnc: 3", "nc is 3, but `names` has 2 entries"),
        ("train: a\nval: b\nnames: {1: a, 2: b}", r"keys of `names` are \[1, 2\]"),
        ("train: a\nval: b\nnames: [a]\npath: nowhere", "`path: nowhere` does not exist"),
        ("just text", "holds no keys"),
        ("a: [", "no YAML: line 1: "),
    ],
)
def test_yaml_problems(folder: Path, content: str, message: str) -> None:
    (folder / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        read_layout(folder)


def test_where_the_yaml_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist: pass a folder with data\.yaml"):
        read_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no data\.yaml"):
        read_layout(tmp_path)
    other = write_yolo(tmp_path, {"train": [GOOD], "val": [GOOD]})
    (other / "data.yaml").rename(other / "coco8.yaml")
    assert read_layout(other).file.name == "coco8.yaml"
    (other / "more.yaml").write_text("")
    with pytest.raises(DataError, match=r"several yaml files \(coco8.yaml, more.yaml\)"):
        read_layout(other)


def test_images_of_folders_lists_and_exports(folder: Path) -> None:
    write_image(folder / "images" / "train" / "deep" / "z.PNG")
    (folder / "images" / "train" / "notes.txt").write_text("no picture")
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
