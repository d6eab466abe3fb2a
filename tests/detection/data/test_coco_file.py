import json
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.data.checks import Problem
from lightning_prune.detection.data.coco_file import CocoFile, read_coco
from lightning_prune.errors import DataError


def content() -> dict[str, Any]:
    """Three images, one object each."""
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(3)
        ],
        "annotations": [
            {"id": 10 + i, "image_id": i + 1, "category_id": 1 + i % 2, "bbox": [8, 8, 20.0, 10]}
            for i in range(3)
        ],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}],
    }


def read(folder: Path, value: Any, encoding: str = "utf-8") -> CocoFile:
    path = folder / "train.json"
    text = value if isinstance(value, str) else json.dumps(value)
    path.write_text(text, encoding=encoding)
    return read_coco(path)


def changed(key: str, index: int = 0, **change: Any) -> dict[str, Any]:
    whole = content()
    whole[key][index].update(change)
    return whole


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_is_read_in_any_encoding_with_a_mark(tmp_path: Path, encoding: str) -> None:
    whole = content()
    whole["categories"][0]["name"] = "Dögge"
    file = read(tmp_path, json.dumps(whole, ensure_ascii=False), encoding)
    assert file.names == ["cat", "Dögge"]
    assert [image.file_name for image in file.images.values()] == ["0.jpg", "1.jpg", "2.jpg"]
    assert file.objects[2][0].box == (8.0, 8.0, 20.0, 10.0)
    assert not file.findings.places


def test_numbers_as_text_and_fractions(tmp_path: Path) -> None:
    whole = content()
    whole["images"][0].update(id="1", width="64", height=48.0)
    whole["annotations"][0].update(image_id=1.0, category_id="1", bbox=["8", "8.5", 20, 10])
    file = read(tmp_path, whole)
    assert file.images[1][1:] == ("0.jpg", 64, 48)
    assert file.objects[1][0][1:] == (1, (8.0, 8.5, 20.0, 10.0))
    assert file.findings.count(Problem.TEXT_NUMBER) == 4


@pytest.mark.parametrize(
    ("flag", "crowd"),
    [(1, True), ("1", True), (True, True), ("true", True), ("0", False), (None, False)],
)
@pytest.mark.parametrize("name", ["iscrowd", "ignore"])
def test_crowds_however_they_are_marked(tmp_path: Path, name: str, flag: Any, crowd: bool) -> None:
    file = read(tmp_path, changed("annotations", **{name: flag}))
    assert (1 not in file.objects) == crowd
    assert file.findings.count(Problem.CROWD) == crowd
    assert file.empty == []


def test_boxes_from_polygons_and_poses(tmp_path: Path) -> None:
    whole = changed("annotations", bbox=None, segmentation=[[1, 2, 5, 2, 5, 8]])
    whole["annotations"][1].update(keypoints=[1, 2, 2] * 17, num_keypoints=17)
    file = read(tmp_path, whole)
    assert file.objects[1][0].box == (1.0, 2.0, 4.0, 6.0)
    assert file.objects[2][0].box == (8.0, 8.0, 20.0, 10.0)
    assert {problem: file.findings.count(problem) for problem in file.findings.places} == {
        Problem.POLYGON: 1,
        Problem.KEY_POINTS: 1,
    }


def test_identical_entries_are_taken_once_and_said(tmp_path: Path) -> None:
    whole = content()
    for name in ("images", "categories", "annotations"):
        whole[name].append(dict(whole[name][0]))
    file = read(tmp_path, whole)
    assert len(file.images) == 3
    assert file.names == ["cat", "dog"]
    assert {problem.name: file.findings.count(problem) for problem in file.findings.places} == {
        "SAME_CATEGORY": 1, "LISTED_TWICE": 1, "SAME_ID": 1,
    }  # fmt: skip


def test_a_name_of_two_ids_is_one_class(tmp_path: Path) -> None:
    whole = content()
    whole["categories"].append({"id": 90, "name": "cat "})
    file = read(tmp_path, whole)
    assert file.names == ["cat", "dog"]
    assert file.categories == {1: "cat", 2: "dog", 90: "cat"}
    assert file.findings.count(Problem.SAME_CATEGORY) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("images", width=None), r"images\[0\] \(0.jpg\): width: null is no finite number"),
        (changed("images", height=0), r"images\[0\] \(0.jpg\): height: 0 is no number of pixels"),
        (changed("images", id=[1]), r"images\[0\] \(0.jpg\): \[1\] is no id"),
        (changed("images", file_name=None), r"images\[0\]: file_name null is no name of a file"),
        (changed("images", file_name=5), r"images\[0\]: file_name 5 is no name"),
        (changed("images", 1, id=1), r"the id 1 stands for 0.jpg \(images\[0\]\) and for 1.jpg"),
        (changed("categories", id=1), "the id 1 stands for dog and for cat"),
        (changed("categories", name=None), r"categories\[0\]: name null is no text"),
        (changed("categories", id=None), r"categories\[0\]: id: null is no id"),
        ({**content(), "images": {"1": {}}}, "has no list images"),
        ({**content(), "images": [3]}, r"images\[0\] is 3, no entry with keys"),
        ({**content(), "categories": []}, "categories is empty"),
        ([{"image_id": 1, "score": 0.5}], r"is a list of predictions \(results\)"),
        ({"images": [], "annotations": [{"caption": "a cat"}]}, "holds captions, no boxes"),
        (
            {**content(), "annotations": [{"segments_info": [{"bbox": [1, 1, 2, 2]}]}]},
            "holds panoptic segments, no boxes: give the instances file",
        ),
        ({"images": [{}], "categories": []}, r"no annotations \(image_info files of test sets"),
        ({"shapes": [], "version": "5"}, "it holds shapes, version: a file of labelme"),
        ("", "is empty"),
        ("[" * 100_000, "nested deeper"),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON: Exceeds the limit"),
        (json.dumps(content())[:-20], "is not JSON: "),
        ("version https://git-lfs.github.com/spec/v1\nsize 448000000\n", "a Git LFS pointer to"),
        ("<!doctype html><html></html>", r"a web page \(HTML\)"),
    ],
)  # fmt: skip
def test_faults_of_the_file_are_one_sentence(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, change)
    assert "train.json" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [8, 8, 20]}, "bbox [8, 8, 20] is no list of four numbers"),
        ({"bbox": "[8, 8, 20, 10]"}, "bbox '[8, 8, 20, 10]' is no list of four numbers"),
        ({"bbox": [8, 8, float("nan"), 1]}, "nan is no finite number"),
        ({"bbox": None}, "no bbox"),
        ({"bbox": [], "segmentation": {"counts": "x", "size": [1, 1]}}, "run lengths (RLE)"),
        ({"category_id": None}, "null is no id"),
        ({"iscrowd": "maybe"}, "iscrowd 'maybe' is neither 0 nor 1"),
    ],
)
def test_faults_of_annotations_are_noted(tmp_path: Path, change: Any, words: str) -> None:
    file = read(tmp_path, changed("annotations", **change))
    (place,) = file.findings.places[Problem.MALFORMED]
    assert place.startswith("train.json, annotations[0] (0.jpg): ")
    assert words in place
    assert file.incomplete == {1}
    assert sorted(file.objects) == [2, 3]


def test_annotations_without_their_image(tmp_path: Path) -> None:
    whole = changed("annotations", image_id=99)
    del whole["annotations"][1]["image_id"]
    file = read(tmp_path, whole)
    assert file.findings.places[Problem.MALFORMED] == [
        "train.json, annotations[1]: has no image_id",
        "train.json: 1 annotations of image id 99, which is absent",
    ]
    assert file.empty == [1, 2]


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read_coco(tmp_path / "folder.json")
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes('{"name": "Käfer"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"no text in UTF-8 \(byte 11\)"):
        read_coco(tmp_path / "latin.json")
