import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from lightning_prune.detection.data.coco_json import CocoJsonDataModule
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_image

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(image: int, category: int, bbox: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def write_coco(root: Path, **changes: Any) -> Path:
    for name in ("train", "val"):
        images = []
        for index in range(2):
            write_image(root / name / f"{index}.jpg", 48, 64, seed=index)
            images.append(
                {"id": 10 + index, "file_name": f"{index}.jpg", "width": 64, "height": 48}
            )
        content = {
            "images": images,
            "annotations": [
                annotation(10, 7, [16, 12, 32, 24]),
                annotation(11, 3, [0, 0, 64.0, 48]),
                annotation(11, 7, [0, 0, 1, 1], iscrowd=1),
            ],
            "categories": CATEGORIES,
            **(changes if name == "train" else {}),
        }
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def make(root: Path, **options: Any) -> CocoJsonDataModule:
    return CocoJsonDataModule(
        root, "train.json", "val.json", None, "train", "val", image_size=64, **options
    )


def test_annotations_become_records(tmp_path: Path) -> None:
    module = make(write_coco(tmp_path))
    assert module.names == ["cat", "dog"]
    with pytest.warns(UserWarning, match="2 x crowd region"):
        module.setup("fit")
    source = module.dataset("train").source
    labels, boxes = zip(*(source.objects(index) for index in range(2)), strict=True)
    assert [each.tolist() for each in labels] == [[1], [0]]
    np.testing.assert_allclose(np.concatenate(boxes), [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    images, targets = next(iter(module.val_dataloader()))
    assert images.shape == (2, 3, 64, 64)
    np.testing.assert_allclose(targets["box"][1], [0.5, 0.5, 1.0, 0.75])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (annotation(10, 4, [1, 1, 5, 5]), r"class id out of range\n.*annotations\[0\] \(0\.jpg\)"),
        (
            annotation(10, 3, [60, 1, 20, 5]),
            r"1 x box outside the image\n.*bbox \[60, 1, 20, 5\] in an image of 64 x 48 pixels",
        ),
        (annotation(10, 3, [6, 1, -2, 5]), r"1 x box with a negative width or height"),
        (annotation(10, 3, [6, 1, 5]), r"1 x malformed annotation\n.*bbox \[6, 1, 5\]"),
        (annotation(99, 3, [6, 1, 5, 5]), r"1 annotations of image id 99, which is absent"),
    ],
)
def test_problems_of_annotations(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    module = make(write_coco(tmp_path, annotations=[entry]))
    with pytest.raises(DataError, match=message):
        module.setup("fit")


def test_problems_of_images(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    write_image(root / "train" / "0.jpg", 30, 64)
    (root / "train" / "1.jpg").unlink()
    with pytest.raises(DataError) as caught:
        make(root).setup("fit")
    assert "image whose size is not the annotated one" in str(caught.value)
    assert "0.jpg: (30, 64), annotated (48, 64) (h, w)" in str(caught.value)
    assert "1 x image that is named and not there" in str(caught.value)
    assert f"images[1]: No such file: {root / 'train' / '1.jpg'}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "train.json is empty"),
        ({"categories": None}, "has no list categories: an annotation file holds"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no file_name, width, height"),
    ],
)
def test_problems_of_the_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(write_coco(tmp_path, **changes)).setup("fit")


def test_absent_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.json does not exist"):
        make(tmp_path)
    root = write_coco(tmp_path)
    (root / "train.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        make(root).setup("fit")


def records(module: CocoJsonDataModule, split: str = "train") -> list[tuple[str, list[int]]]:
    source = module.dataset(split).source
    return [(each.path.name, each.labels.tolist()) for each in source.records]  # type: ignore[attr-defined]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_oddities_of_the_official_files_train(tmp_path: Path) -> None:
    # Of instances_train2017.json: annotations 918 and 2206849 have no height, ids of categories go
    # to 90 with gaps, 1,021 images have no annotations, some annotations are crowds.
    root = write_coco(
        tmp_path,
        categories=[{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}],
        annotations=[
            annotation(10, 90, [16, 12, 32, 24], id=1),
            annotation(10, 90, [46.65, 38.33, 1.03, 0.0], id=918, iscrowd=0),
            annotation(10, 1, [0, 0, 64, 48], id=3, iscrowd=1, segmentation={"counts": [9]}),
        ],
    )
    module = make(root)
    with pytest.warns(UserWarning) as caught:
        module.setup("fit")
    (said,) = (str(each.message) for each in caught if "peculiarities" in str(each.message))
    assert (
        "1 x box without area (left out)\n      train.json, annotations[1] (0.jpg): bbox [46.65"
        in said
    )
    assert "2 x crowd region" in said
    assert "1 x image without annotations (taken as background)\n      train.json: 1.jpg" in said
    assert module.names == ["cat", "dog"]
    assert records(module) == [("0.jpg", [1]), ("1.jpg", [])]


def test_categories_of_other_files_are_matched_by_name(tmp_path: Path) -> None:
    root = write_coco(tmp_path)

    def swap(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}]
        for each in content["annotations"]:
            each["category_id"] = {7: 3, 3: 5}[each["category_id"]]

    edit(root / "val.json", swap)
    module = make(root)
    with pytest.warns(UserWarning, match="crowd"):
        module.setup("fit")
    assert records(module) == records(module, "val") == [("0.jpg", [1]), ("1.jpg", [0])]


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 7, "name": "owl"}, {"id": 3, "name": "cat"}], r"category 7 \(owl\) is not in the"),
        ([{"id": 7, "name": "Hund"}, {"id": 3, "name": "Katze"}], r"\(Katze, Hund\) are not those"),
        ([{"id": 3, "name": "cat"}], "category 7 is not among `categories`"),
    ],
)
def test_categories_that_are_no_class(tmp_path: Path, categories: Any, words: str) -> None:
    root = write_coco(tmp_path)
    edit(root / "val.json", lambda content: content.update(categories=categories))
    with pytest.raises(DataError, match=words):
        make(root).setup("fit")


def test_one_file_under_two_ids_has_all_objects(tmp_path: Path) -> None:
    root = write_coco(tmp_path)

    def again(content: dict[str, Any]) -> None:
        content["images"].append({"id": 50, "file_name": "./0.jpg", "width": 64, "height": 48})
        content["annotations"].append(annotation(50, 3, [40, 30, 9, 9]))

    edit(root / "train.json", again)
    module = make(root)
    with pytest.warns(UserWarning, match=r"1 x image under several ids .*\n.*0.jpg: ids 10 and 50"):
        module.setup("fit")
    assert records(module) == [("0.jpg", [1, 0]), ("1.jpg", [0])]
    edit(root / "train.json", lambda content: content["images"][-1].update(width=32))
    with pytest.raises(DataError, match="is listed with two sizes"):
        make(root).setup("fit")


@pytest.mark.parametrize(
    "name",
    [
        "train/0.jpg",
        "train\\0.jpg",
        "/home/somebody/images/0.jpg",
        "C:\\data\\0.jpg",
        "http://images.cocodataset.org/train2017/0.jpg?dl=1",
    ],
)
def test_images_of_another_computer_are_found(tmp_path: Path, name: str) -> None:
    root = write_coco(tmp_path)
    edit(root / "train.json", lambda content: content["images"][0].update(file_name=name))
    module = make(root)
    with pytest.warns(UserWarning, match="crowd"):
        module.setup("fit")
    assert records(module) == [("0.jpg", [1]), ("1.jpg", [0])]


def test_names_that_fit_several_images_are_not_guessed(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    edit(root / "train.json", lambda content: content["images"][0].update(file_name="x/1.jpg"))
    with pytest.raises(DataError, match=r"No such file: .*train/x/1.jpg"):
        make(root).setup("fit")


def test_the_folder_of_the_images_is_wrong(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    for path in (root / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"not one of its 2 images is there; the first is 0\.jpg"):
        make(root).setup("fit")


def test_boxes_of_another_format(tmp_path: Path) -> None:
    fractions = [annotation(10, 3, [0.1, 0.2, 0.3, 0.4])]
    with pytest.raises(DataError, match=r"no `bbox` has a number above 1.*COCO's are in pixels"):
        make(write_coco(tmp_path / "a", annotations=fractions)).setup("fit")
    corners = [annotation(10, 3, [30, 20, 60 - i, 40]) for i in range(3)]
    with pytest.raises(DataError, match="seem to be x1, y1, x2, y2") as caught:
        make(write_coco(tmp_path / "b", annotations=corners)).setup("fit")
    assert "`bbox` is x, y, width, height in pixels" in str(caught.value)
    assert "fractions" not in str(caught.value)


def test_boxes_may_stick_out_by_a_pixel(tmp_path: Path) -> None:
    entry = annotation(10, 3, [-0.9, 0, 65.8, 48.9])
    module = make(write_coco(tmp_path, annotations=[entry]))
    with pytest.warns(UserWarning, match="without annotations") as caught:
        module.setup("fit")
    assert "outside" not in str(caught[0].message)
    sample = module.dataset("train")[0]
    torch.testing.assert_close(sample[2], torch.tensor([[0.5, 0.5, 1.0, 0.75]]))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64)])
def test_the_annotated_size_tells_whether_exif_turns(
    tmp_path: Path, width: int, height: int
) -> None:
    root = write_coco(tmp_path)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(root / "train" / "0.jpg", exif=exif)
    left = annotation(10, 3, [0, 0, 32, 48] if width == 64 else [0, 0, 48, 32])

    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(width=width, height=height)
        content["annotations"] = [left]

    edit(root / "train.json", change)
    module = make(root)
    with pytest.warns(UserWarning, match="without annotations") as caught:
        module.setup("fit")
    assert ("as it is stored, without its EXIF" in str(caught[0].message)) == (width == 64)
    source = module.dataset("train").source
    found = source.image(0)
    assert found.shape == (height, width, 3)
    x1, y1, x2, y2 = ((source.objects(0)[1][0, [0, 1, 0, 1]] + np.array([-1, -1, 1, 1]) *
                       source.objects(0)[1][0, [2, 3, 2, 3]] / 2) *
                      [width, height, width, height]).round().astype(int)  # fmt: skip
    assert found[y1:y2, x1:x2].min() > 200
    assert found.mean() == pytest.approx(127.5, abs=3)


def test_a_large_set_is_refused_before_its_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_prune.detection.data.usable_images.MANY", 3)
    root = write_coco(tmp_path, annotations=[annotation(10, 3, [1])])
    (root / "train" / "1.jpg").write_text("torn")
    with pytest.raises(DataError, match="malformed") as caught:
        make(root).setup("fit")
    assert "1.jpg" not in str(caught.value).replace("train.json: 1.jpg", "")


def test_real_annotations_are_those_of_pycocotools(shared: Path, tmp_path: Path) -> None:
    yolo = YoloFolderDataModule(shared / "data" / "coco_open", decode_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yolo.setup("validate")
    source = yolo.dataset("val").source
    images, annotations = [], []
    for index, record in enumerate(source.records):  # type: ignore[attr-defined]
        with Image.open(record.path) as image:
            width, height = image.size
        images.append(
            {"id": 1000 - index, "file_name": record.path.name, "width": width, "height": height}
        )
        for label, (cx, cy, w, h) in zip(record.labels, record.boxes, strict=True):
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            annotations.append(
                annotation(1000 - index, 90 - int(label), box, area=w * h, iscrowd=0)
            )
    for index, each in enumerate(annotations):
        each["id"] = index + 1
    categories = [{"id": 90 - label, "name": name} for label, name in enumerate(yolo.names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    folder = str(shared / "data" / "coco_open" / "images" / "val")
    module = CocoJsonDataModule(tmp_path, "a.json", "a.json", None, folder, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.setup("fit")
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(tmp_path / "a.json"))
    found = module.dataset("train").source
    for index, entry in enumerate(images):
        labels, boxes = found.objects(index)
        expected = oracle.loadAnns(oracle.getAnnIds(imgIds=entry["id"]))
        assert [module.names[label] for label in labels] == [
            oracle.cats[each["category_id"]]["name"] for each in expected
        ]
        scale = np.array([entry["width"], entry["height"]] * 2)
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1) * scale
        np.testing.assert_allclose(corners, [each["bbox"] for each in expected], atol=1e-9)
