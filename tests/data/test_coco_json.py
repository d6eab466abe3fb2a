import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_prune.data.checks import DataError
from lightning_prune.data.coco_json import CocoJsonDataModule
from tests.data.folders import write_image

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
        (annotation(10, 3, [60, 1, 20, 5]), r"1 x box outside the picture"),
        (annotation(10, 3, [6, 1, 0, 5]), r"1 x box without area"),
        (annotation(10, 3, [6, 1, 5]), r"1 x malformed annotation\n.*bbox \[6, 1, 5\]"),
        (annotation(99, 3, [6, 1, 5, 5]), r"1 annotations of image id 99, which is absent"),
    ],
)
def test_problems_of_annotations(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    module = make(write_coco(tmp_path, annotations=[entry]))
    with pytest.raises(DataError, match=message):
        module.setup("fit")


def test_problems_of_pictures(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    write_image(root / "train" / "0.jpg", 30, 64)
    (root / "train" / "1.jpg").unlink()
    with pytest.raises(DataError) as caught:
        make(root).setup("fit")
    assert "image whose size is not the annotated one" in str(caught.value)
    assert "0.jpg: (30, 64), annotated (48, 64) (h, w)" in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "train.json is empty"),
        ({"categories": None}, "holds the lists images, annotations, categories"),
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
