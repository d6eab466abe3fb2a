import json

import pytest
import torch
from safetensors.torch import save_file

from lightning_prune.models.yolov8.conversion import convert_ultralytics
from lightning_prune.models.yolov8.network import YOLOv8
from lightning_prune.models.yolov8.weights import (
    PREFIX,
    infer_architecture,
    read_state_dict,
    read_weights,
)
from lightning_prune.surgery.architecture import RECORD
from tests.files.hostile import hostile_files, little_memory
from tests.models.yolov8.foreign_pickle import save_foreign
from tests.models.yolov8.layout import recipe_state, ultralytics_layout

NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def theirs():
    return recipe_state(ultralytics_layout("n", 3), 5, 1.0)


@pytest.fixture(scope="module")
def ours(theirs):
    return convert_ultralytics(theirs)


def assert_same(found, expected, tolerance=0.0):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def test_loads_the_coco_weights_strictly(shared):
    found = read_weights(shared / "data" / "yolov8n_coco" / "yolov8n_coco.safetensors")
    assert (found.size, found.num_classes, found.names) == ("n", 80, None)
    YOLOv8("n", 80).load_state_dict(found.state_dict)


def test_reads_a_file_of_ultralytics(tmp_path, theirs, ours):
    half = {k: v.half() if v.is_floating_point() else v for k, v in theirs.items()}
    path = save_foreign(
        tmp_path / "best.pt", {"model": half, "ema": None}, names=dict(enumerate(NAMES)),
        train_args={"imgsz": 320, "task": "detect"},
    )  # fmt: skip
    found = read_weights(path)
    assert (found.size, found.num_classes, found.names, found.image_size) == ("n", 3, NAMES, 320)
    assert_same(found.state_dict, ours, 1e-3)
    assert_same(read_state_dict(path), found.state_dict)


def test_takes_the_averaged_weights(tmp_path, theirs, ours):
    other = {k: torch.zeros_like(v) for k, v in theirs.items()}
    path = save_foreign(tmp_path / "last.pt", {"model": other, "ema": theirs})
    assert_same(read_weights(path).state_dict, ours)


@pytest.mark.parametrize(
    "kind", ["SegmentationModel", "PoseModel", "ClassificationModel", "OBBModel"]
)
def test_refuses_other_tasks_by_name(tmp_path, theirs, kind):
    path = save_foreign(tmp_path / "x.pt", {"model": theirs, "ema": None}, kind=kind)
    with pytest.raises(ValueError, match=f"holds a {kind}: only YOLOv8 detection"):
        read_weights(path)


def test_refuses_other_generations_by_name(tmp_path, theirs):
    moved = {k.replace("model.22.", "model.23."): v for k, v in theirs.items()}
    path = save_foreign(tmp_path / "x.pt", {"model": moved, "ema": None})
    with pytest.raises(ValueError, match="YOLO11"):
        read_weights(path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("whose", ["theirs", "ours", "module", "compiled"])
def test_reads_plain_state_dicts(tmp_path, theirs, ours, wrap, whose):
    module = {"network." + k: v for k, v in ours.items()}
    compiled = {"network._orig_mod." + k: v for k, v in ours.items()}
    states = {"theirs": theirs, "ours": ours, "module": module, "compiled": compiled}
    torch.save(wrap(states[whose]), tmp_path / "x.pt")
    assert_same(read_weights(tmp_path / "x.pt").state_dict, ours)


@pytest.mark.parametrize("metadata", [None, {"names": '["cat", "dog", "owl"]'}, {"names": "{"}])
def test_reads_safetensors(tmp_path, theirs, ours, metadata):
    save_file(theirs, tmp_path / "x.safetensors", metadata)
    found = read_weights(tmp_path / "x.safetensors")
    assert_same(found.state_dict, ours)
    assert found.names == (NAMES if metadata and len(metadata["names"]) > 1 else None)


def test_names_that_do_not_fit_are_left_out(tmp_path, theirs):
    path = save_foreign(tmp_path / "x.pt", {"model": theirs}, names={0: "only"})
    with pytest.warns(UserWarning, match="names 1 classes but its head has 3"):
        assert read_weights(path).names is None


def test_damaged_files(tmp_path, theirs):
    save_file(theirs, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    for kept in (0, 5, 3000, len(data) - 10):
        (tmp_path / "x.safetensors").write_bytes(data[:kept])
        with pytest.raises(ValueError, match="damaged"):
            read_weights(tmp_path / "x.safetensors")
    torch.save(theirs, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_weights(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path / "absent.pt")


def test_contents_that_do_not_fit(tmp_path, theirs, ours):
    def reading(content, message):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "x.pt")

    reading([1, 2], "holds a list")
    reading({"epoch": 3}, "neither a model nor a state dict")
    reading({k: v for k, v in ours.items() if "p4.down" not in k}, "is missing")
    reading({k: v for k, v in theirs.items() if not k.startswith("model.0.")}, "p1.conv.weight")
    reading({**ours, "backbone.p6.weight": torch.ones(1)}, "p6.weight is unknown")
    wrong = dict(ours)
    wrong["neck.down3.norm.bias"] = torch.zeros(9)
    reading(wrong, r"neck\.down3\.norm\.bias is \(9,\) instead of \(64,\)")
    wrong = dict(ours)
    wrong["neck.down3.norm.bias"] = torch.full((64,), float("nan"))
    reading(wrong, "NaN or infinity")
    wrong = dict(ours)
    wrong["backbone.p1.conv.weight"] = torch.zeros(17, 3, 3, 3)
    reading(wrong, "17 channels in p1")


def test_hostile_files(tmp_path, ours, theirs):
    for name, path, _ in hostile_files(tmp_path):
        with little_memory(), pytest.raises(ValueError, match=f"{name}.ckpt"):
            read_weights(path)
    assert not (tmp_path / "sprung").exists()
    # A view of everything for each name: copies are made only after the shapes were compared.
    whole = torch.zeros(10**7)
    shared = dict.fromkeys(ours, whole) | {f"x{n}": whole for n in range(100)}
    torch.save(shared, tmp_path / "shared.pt")
    with little_memory(), pytest.raises(ValueError, match=r"channels in p1|no YOLOv8"):
        read_weights(tmp_path / "shared.pt")
    for state in ((3, 4), ([1], None), {"_modules": [1]}, {"_parameters": 7}):
        torch.save({"model": Stateful(state)}, tmp_path / "forged.pt")
        with pytest.raises(ValueError, match=r"forged\.pt: "):
            read_weights(tmp_path / "forged.pt")


class Stateful:
    """Pickles as an object of any state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return object.__new__, (Stateful,), self.state


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("head.classes.0.2.weight", [10**9, 64, 1, 1]),
        ("backbone.p1.conv.weight", [16, 10**9, 3, 3]),
        ("neck.down3.norm.bias", [9]),
        ("neck.down3.norm.bias", [64, 64]),
    ],
)
def test_a_record_of_a_network_that_no_cut_came_from(tmp_path, ours, name, dense):
    record = json.dumps({"version": 1, "dense": {PREFIX + name: dense}, "attributes": {}})
    state = {PREFIX + key: value for key, value in ours.items()}
    state[RECORD] = torch.tensor(list(record.encode()), dtype=torch.uint8)
    torch.save(state, tmp_path / "x.pt")
    with little_memory(), pytest.raises(ValueError, match=rf"{name} is .* the file was altered"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize(("size", "classes"), [("n", 1), ("s", 80), ("x", 4)])
def test_infers_the_architecture(size, classes):
    with torch.device("meta"):
        state = YOLOv8(size, classes).state_dict()
    assert infer_architecture(state) == (size, classes)
