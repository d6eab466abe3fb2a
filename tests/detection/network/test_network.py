import json

import numpy as np
import pytest
import torch

from lightning_prune.detection.network.head import flatten_maps
from lightning_prune.detection.network.network import SIZES, YOLOv8
from lightning_prune.detection.weights.conversion import convert_ultralytics
from lightning_prune.graph.trace import trace_groups
from tests.detection.network.layout import recipe_state, ultralytics_layout

CASES = [("n", 10), ("n", 80), ("s", 10), ("m", 20), ("l", 10), ("x", 10)]


@pytest.fixture(scope="module")
def vectors(golden_vectors):
    text = (golden_vectors / "12_yolov8_full_models.json").read_text()
    return json.loads(text)


def case_of(vectors, size, classes):
    recipes = vectors["recipe_numpy"]
    return next(r for r in recipes if r["model"] == f"yolov8{size}" and r["nc"] == classes)


def golden_image(vectors):
    image = vectors["image"]
    h, w = image["H"], image["W"]
    wave = 0.5 + 0.5 * np.sin(np.linspace(0, image["F"], 3 * h * w))
    return torch.tensor(wave.astype(np.float32).reshape(1, 3, h, w))


def check_stats(tensor, stats, rtol, atol):
    assert list(tensor.shape) == stats["shape"]
    flat = tensor.flatten()
    torch.testing.assert_close(
        flat[stats["flat_indices"]], torch.tensor(stats["entries"]), rtol=rtol, atol=atol
    )
    assert flat.double().mean().item() == pytest.approx(stats["mean"], rel=1e-3, abs=atol)
    assert flat.double().std().item() == pytest.approx(stats["std"], rel=1e-3)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("n", 3_157_200), ("s", 11_166_560), ("m", 25_902_640), ("l", 43_691_520), ("x", 68_229_648)],
)
def test_published_parameter_counts(size, parameters):
    with torch.device("meta"):
        network = YOLOv8(size, 80)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("size", "classes"), CASES)
def test_reproduces_the_reference(vectors, size, classes):
    case = case_of(vectors, size, classes)
    layout = ultralytics_layout(size, classes)
    if case["state_dict_names_shapes"]:
        assert [[n, list(s)] for n, s in layout] == case["state_dict_names_shapes"]
    state = recipe_state(layout, case["numpy_seed_base"], case["conv_gain"])
    network = YOLOv8(size, classes)
    network.load_state_dict(convert_ultralytics(state))
    image = golden_image(vectors)
    with torch.no_grad():
        network.eval()
        box_logits, class_logits = flatten_maps(network.raw_maps(image))
        decoded = network(image)
    check_stats(box_logits, case["box_logits"], 1e-3, 1e-3)
    check_stats(class_logits, case["cls_logits"], 1e-3, 1e-3)
    check_stats(decoded, case["decoded"], 1e-4, 1e-2)


@pytest.mark.parametrize("classes", [10, 80])
def test_reproduces_every_number_of_the_smallest_size(golden_vectors, vectors, classes):
    case = case_of(vectors, "n", classes)
    network = YOLOv8("n", classes).eval()
    layout = ultralytics_layout("n", classes)
    network.load_state_dict(
        convert_ultralytics(recipe_state(layout, case["numpy_seed_base"], case["conv_gain"]))
    )
    with torch.no_grad():
        decoded = network(golden_image(vectors))
    expected = np.load(golden_vectors / "12_yolov8_full_models.npz")
    expected = torch.tensor(expected[f"numpy_n_nc{classes}|decoded"])
    torch.testing.assert_close(decoded[:, :4], expected[:, :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(decoded[:, 4:], expected[:, 4:], rtol=1e-3, atol=1e-5)


def test_reproduces_training_mode(vectors):
    case = case_of(vectors, "n", 10)
    network = YOLOv8("n", 10).train()
    layout = ultralytics_layout("n", 10)
    network.load_state_dict(
        convert_ultralytics(recipe_state(layout, case["numpy_seed_base"], case["conv_gain"]))
    )
    image = golden_image(vectors)
    with torch.no_grad():
        box_logits, class_logits = flatten_maps(network(torch.cat((image, image.flip(-1)))))
    expected = case["train_mode_batch2_second_is_hflip"]
    check_stats(box_logits, expected["box_logits"], 2e-3, 2e-3)
    check_stats(class_logits, expected["cls_logits"], 2e-3, 2e-3)


def test_other_widths_and_channels():
    network = YOLOv8("n", 3, in_channels=1, widths=(4, 8, 16, 24, 32), depths=(1, 1, 1)).eval()
    assert network(torch.zeros(2, 1, 64, 32)).shape == (2, 7, 8 * 4 + 4 * 2 + 2)
    assert [m.shape for m in network.train()(torch.zeros(2, 1, 64, 64))] == [
        (2, 67, 8, 8), (2, 67, 4, 4), (2, 67, 2, 2),
    ]  # fmt: skip


def test_every_hidden_convolution_can_be_pruned():
    network = YOLOv8("n", 4)
    groups = trace_groups(network, torch.zeros(1, 3, 64, 64), lambda m, x: m.raw_maps(x))
    convolutions = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    last = [f"head.{kind}.{level}.2" for kind in ("boxes", "classes") for level in range(3)]
    assert sorted(groups.refused) == sorted(last)
    assert sorted(groups.prunable_layers) == sorted(set(convolutions) - set(last))


def test_starts_with_few_detections():
    network = YOLOv8("n", 10).eval()
    with torch.no_grad():
        probabilities = network(torch.rand(1, 3, 160, 160))[:, 4:]
    assert probabilities.max() < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "b"}, "pass one of n, s, m, l, x"),
        ({"num_classes": 0}, "at least 1"),
        ({"widths": (1, 2, 3)}, "5 positive"),
        ({"widths": (16, 33, 64, 128, 256)}, "even"),
        ({"depths": (1, 1)}, "3 numbers"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        YOLOv8(**arguments)


def test_refuses_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match="multiples of 32"):
        YOLOv8("n", 1)(torch.zeros(1, 3, 100, 96))


def test_sizes_are_the_five_published_ones():
    assert list(SIZES) == ["n", "s", "m", "l", "x"]
