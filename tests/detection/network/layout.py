"""Names and shapes of an Ultralytics YOLOv8 detector, written out from the specification."""

import numpy as np
import torch

from lightning_prune.detection.network.network import SIZES

Layout = list[tuple[str, tuple[int, ...]]]


def _conv(name: str, c1: int, c2: int, k: int) -> Layout:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return [
        (f"{name}.conv.weight", (c2, c1, k, k)),
        *((f"{name}.bn.{v}", (c2,)) for v in vectors),
        (f"{name}.bn.num_batches_tracked", ()),
    ]


def _c2f(name: str, c1: int, c2: int, n: int) -> Layout:
    h = c2 // 2
    rows = _conv(f"{name}.cv1", c1, 2 * h, 1) + _conv(f"{name}.cv2", (2 + n) * h, c2, 1)
    for i in range(n):
        rows += _conv(f"{name}.m.{i}.cv1", h, h, 3) + _conv(f"{name}.m.{i}.cv2", h, h, 3)
    return rows


def _sppf(name: str, c1: int, c2: int) -> Layout:
    return _conv(f"{name}.cv1", c1, c1 // 2, 1) + _conv(f"{name}.cv2", c1 // 2 * 4, c2, 1)


def _branch(name: str, c1: int, hidden: int, out: int) -> Layout:
    rows = _conv(f"{name}.0", c1, hidden, 3) + _conv(f"{name}.1", hidden, hidden, 3)
    return [*rows, (f"{name}.2.weight", (out, hidden, 1, 1)), (f"{name}.2.bias", (out,))]


def ultralytics_layout(size: str, num_classes: int) -> Layout:
    """List every tensor in the order of the Ultralytics state dict."""
    w1, w2, w3, w4, w5 = SIZES[size].widths
    d0, d1, d2 = SIZES[size].depths
    rows = _conv("model.0", 3, w1, 3)
    rows += _conv("model.1", w1, w2, 3) + _c2f("model.2", w2, w2, d0)
    rows += _conv("model.3", w2, w3, 3) + _c2f("model.4", w3, w3, d1)
    rows += _conv("model.5", w3, w4, 3) + _c2f("model.6", w4, w4, d2)
    rows += _conv("model.7", w4, w5, 3) + _c2f("model.8", w5, w5, d0)
    rows += _sppf("model.9", w5, w5)
    rows += _c2f("model.12", w5 + w4, w4, d0) + _c2f("model.15", w4 + w3, w3, d0)
    rows += _conv("model.16", w3, w3, 3) + _c2f("model.18", w3 + w4, w4, d0)
    rows += _conv("model.19", w4, w4, 3) + _c2f("model.21", w4 + w5, w5, d0)
    levels = (w3, w4, w5)
    for i, c in enumerate(levels):
        rows += _branch(f"model.22.cv2.{i}", c, max(w3 // 4, 64), 64)
    for i, c in enumerate(levels):
        rows += _branch(f"model.22.cv3.{i}", c, max(w3, min(num_classes, 100)), num_classes)
    return [*rows, ("model.22.dfl.conv.weight", (1, 16, 1, 1))]


def recipe_state(layout: Layout, seed: int, gain: float) -> dict[str, torch.Tensor]:
    """Fill a layout with the numbers of ``recipe_numpy`` of golden vector 12."""
    state = {}
    for index, (name, shape) in enumerate(layout):
        random = np.random.RandomState(seed + index)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if "dfl" in name:
            value = np.arange(16.0).reshape(shape)
        elif len(shape) == 4:
            value = random.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(("running_var", "bn.weight")):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.standard_normal(shape) * 0.1
        state[name] = torch.tensor(value.astype(np.float32))
    return state
