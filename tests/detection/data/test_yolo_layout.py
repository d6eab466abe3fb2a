from pathlib import Path

import pytest

from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_yolo

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
        ("a: [", r"no YAML: line \d: "),
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


ENTRIES = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (ENTRIES + 'names: {"1": dog, "0": cat}', ["cat", "dog"]),
        (ENTRIES + 'nc: "2"', ["class0", "class1"]),
        (ENTRIES + "nc: 2.0\nnames: [1.5, b]", ["1.5", "b"]),
        ("train: images\\train\nval: images\\val\nnames: [a]", ["a"]),
        ("train: images/train\nvalid: images/val\nnames: [a]", ["a"]),
        ("path: C:\\data\\set\n" + ENTRIES + "names: [a]", ["a"]),
    ],
)
def test_other_ways_to_write_it(folder: Path, content: str, names: list[str]) -> None:
    (folder / "data.yaml").write_text(content)
    layout = read_layout(folder)
    assert layout.names == names
    assert list(layout.entries) == ["train", "val"]
    assert (layout.note is None) == ("path" not in content)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ENTRIES + "nc: 1000000000", "nc is 1000000000: give the number of classes, 1 to 100000"),
        (ENTRIES + "nc: true", "nc is True: give the number of classes"),
        (BOMB + ENTRIES + "names: *i", "its aliases stand for more than 1,000,000 values"),
        (ENTRIES + "names: " + "[" * 5000 + "]" * 5000, "nest"),
        (ENTRIES + "names: [[a], b]", r"names\[0\] is a list of 1: give a text"),
        (ENTRIES + "names: [yes, no]", r"names\[0\] is True \(so YAML reads yes, no, on and off\)"),
        (ENTRIES + "names: a, b", "`names` is 'a, b': give a list"),
        (ENTRIES + "names: {0: a, 2: c}", r"are \[0, 2\], 1 is missing: number them 0, 1, 2"),
        (ENTRIES + "names: [a]\nkpt_shape: 17", r"kpt_shape is 17: give \[points, 2\]"),
        ("train: [images/train, null]\nval: a\nnames: [a]", "`train` holds None: give a folder"),
        ("train: a\nval: {b: c}\nnames: [a]", "`val` holds a mapping of 1: give a folder"),
        ("train: a\ntest: b\nnames: [a]", "`val: b` would validate on the test split"),
        ("train: a\nval: b\nnames: [a]\npath: nowhere\ndownload: x.zip", "`download` is not run"),
        ("version https://git-lfs.github.com/spec/v1\nsize 5\n", "a Git LFS pointer to 5 bytes"),
    ],
)
def test_hostile_files_are_one_sentence(folder: Path, content: str, message: str) -> None:
    (folder / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_layout(folder)
    assert len(str(caught.value)) < 1000
    assert "data.yaml" in str(caught.value)


def test_a_path_that_is_elsewhere_on_this_machine(folder: Path) -> None:
    (folder / "data.yaml").write_text("path: ../datasets/set\n" + ENTRIES + "names: [a]")
    layout = read_layout(folder)
    assert layout.base == folder.resolve()
    assert "`path: ../datasets/set` does not exist; its entries are in the folder" in layout.note


def test_pose_data_sets_say_their_key_points(folder: Path) -> None:
    (folder / "data.yaml").write_text(ENTRIES + "names: [a]\nkpt_shape: [17, 3]")
    assert read_layout(folder).key_points == (17, 3)
