import numpy as np
import torch

from lightning_prune.detection.network.head import DFL, Head, anchor_points, flatten_maps
from lightning_prune.detection.weights.conversion import convert_ultralytics


def test_reproduces_the_reference(golden_vectors):
    arrays = np.load(golden_vectors / "12_yolov8_blocks.npz")
    state = {
        "model.22." + name.removeprefix("detect|w|"): torch.tensor(arrays[name])
        for name in arrays.files
        if name.startswith("detect|w|")
    }
    head = Head((6, 8, 10), 4).eval()
    state = {k.removeprefix("head."): v for k, v in convert_ultralytics(state).items()}
    missing = head.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    assert not missing.unexpected_keys
    with torch.no_grad():
        maps = head([torch.tensor(arrays[f"detect|x{i}"]) for i in range(3)])
        decoded = head.decode(maps)
    boxes, classes = flatten_maps(maps)
    points, strides = anchor_points(maps, head.strides)
    for ours, theirs in (
        (boxes, "box_logits"), (classes, "cls_logits"), (decoded, "decoded"),
        (points, "anchor_points"), (strides[:, None], "stride_per_anchor"),
    ):  # fmt: skip
        expected = torch.tensor(arrays[f"detect|{theirs}"])
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


def test_dfl_reproduces_the_reference(golden_vectors):
    arrays = np.load(golden_vectors / "12_yolov8_blocks.npz")
    x = torch.tensor(arrays["dfl|x"])
    ours = DFL()(x.view(2, 4, 16, 11).transpose(2, 3))
    torch.testing.assert_close(ours, torch.tensor(arrays["dfl|y"]), rtol=1e-5, atol=1e-5)


def test_dfl_of_a_certain_bin_is_its_index():
    logits = torch.full((16, 16), -100.0).fill_diagonal_(100.0)
    torch.testing.assert_close(DFL()(logits), torch.arange(16.0))


def test_decoding_is_float32_from_half_precision_maps():
    head = Head((8, 8, 8), 2)
    maps = [torch.randn(1, 66, s, s) for s in (4, 2, 1)]
    exact = head.decode(maps)
    half = head.decode([m.bfloat16() for m in maps])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.05, atol=3.0)


def test_works_with_other_widths_than_it_was_built_with():
    head = Head((8, 8, 8), 2).eval()
    first, second = head.boxes[0][0], head.boxes[0][1]
    first.conv = torch.nn.Conv2d(8, 5, 3, padding=1, bias=False)
    first.norm = torch.nn.BatchNorm2d(5).eval()
    second.conv = torch.nn.Conv2d(5, 64, 3, padding=1, bias=False)
    features = [torch.rand(1, 8, s, s) for s in (4, 2, 1)]
    assert head.decode(head(features)).shape == (1, 6, 21)
