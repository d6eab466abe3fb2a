import numpy as np
import pytest
import torch

from lightning_prune.detection.network.blocks import CSP, SPP, Bottleneck, Conv
from lightning_prune.detection.weights.conversion import convert_ultralytics

BLOCKS = {
    "conv_k3_s2": (lambda: Conv(3, 8, 3, 2), "model.0.", "backbone.p1."),
    "bottleneck_add": (
        lambda: Bottleneck(8), "model.2.m.0.", "backbone.p2.csp.bottlenecks.0."
    ),
    "c2f_n1_shortcut": (lambda: CSP(8, 8, 1), "model.2.", "backbone.p2.csp."),
    "c2f_n2_noshortcut": (lambda: CSP(12, 8, 2, add=False), "model.2.", "backbone.p2.csp."),
    "sppf_legacy_silu": (lambda: SPP(8, 10), "model.9.", "backbone.p5.spp."),
}  # fmt: skip


def converted(arrays, key, theirs, ours):
    part = {
        theirs + name.removeprefix(key): torch.tensor(arrays[name])
        for name in arrays.files
        if name.startswith(key)
    }
    return {name.removeprefix(ours): value for name, value in convert_ultralytics(part).items()}


@pytest.mark.parametrize("name", BLOCKS)
def test_reproduces_the_reference(golden_vectors, name):
    arrays = np.load(golden_vectors / "12_yolov8_blocks.npz")
    build, theirs, ours = BLOCKS[name]
    block = build()
    missing = block.load_state_dict(converted(arrays, f"{name}|w|", theirs, ours), strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    assert not missing.unexpected_keys
    x = torch.tensor(arrays[f"{name}|x0"])
    with torch.no_grad():
        evaluated = block.eval()(x)
        trained = block.train()(x)
    torch.testing.assert_close(
        evaluated, torch.tensor(arrays[f"{name}|y_eval"]), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        trained, torch.tensor(arrays[f"{name}|y_train"]), rtol=1e-5, atol=1e-5
    )
    state = block.state_dict()
    for key, value in converted(arrays, f"{name}|after_train|", theirs, ours).items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)


def test_raw_convolution_output_survives_the_activation():
    block = Conv(3, 4, 3).eval()
    seen = []
    block.conv.register_forward_hook(lambda _m, _i, output: seen.append((output, output.clone())))
    block(torch.rand(1, 3, 8, 8))
    assert torch.equal(*seen[0])


@pytest.mark.parametrize("build", [lambda: CSP(4, 5), lambda: SPP(5, 4)])
def test_refuses_odd_widths(build):
    with pytest.raises(ValueError, match="odd"):
        build()
