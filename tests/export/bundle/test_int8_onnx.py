"""8 bits against ONNX Runtime's own float file and a NumPy quantizer."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from lightning_prune.export.bundle.int8_onnx import int8_onnx
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.export.runtimes.onnx_file import OnnxFile

pytest.importorskip("onnxruntime")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, stride=2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


def images(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random((1, 3, 16, 16), dtype=np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def floating() -> bytes:
    return onnx_model(network(), torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def small(floating: bytes) -> bytes:
    return int8_onnx(floating, [{"input0": one} for one in images(16, 0)])


def weights_of(content: bytes) -> dict[str, np.ndarray]:
    proto = onnx.load_from_string(content)
    return {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}


def test_outputs_are_close_and_the_batch_stays_free(floating: bytes, small: bytes):
    one, other = OnnxFile(floating), OnnxFile(small)
    batch = np.concatenate(images(5, 1))
    (wanted,), (found,) = one([batch]), other([batch])
    assert 0 < np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()


def test_weights_have_a_scale_for_each_channel_in_seven_bits(floating: bytes, small: bytes):
    dense = next(w for w in weights_of(floating).values() if w.shape == (16, 3, 3, 3))
    stored = weights_of(small)
    weight = next(w for w in stored.values() if w.shape == dense.shape and w.dtype == np.int8)
    assert np.abs(weight).max() <= 64
    scale = np.abs(dense).reshape(16, -1).max(1) / np.abs(weight.astype(int)).reshape(16, -1).max(1)
    again = weight * scale[:, None, None, None]
    assert np.abs(again - dense).max() <= 0.51 * scale.max()


def test_full_weights_have_eight_bits(floating: bytes):
    full = int8_onnx(floating, [{"input0": one} for one in images(4, 0)], narrow=False)
    assert max(np.abs(w.astype(int)).max() for w in weights_of(full).values()
               if w.dtype == np.int8 and w.ndim == 4) == 127  # fmt: skip


def test_a_network_without_layers_is_refused():
    content = onnx_model(nn.ReLU(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="no layer that can be computed in 8 bits"):
        int8_onnx(content, [{"input0": np.zeros((1, 3, 4, 4), np.float32)}])
