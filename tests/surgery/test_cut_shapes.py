import re

import pytest
from torch import nn

from lightning_prune.surgery.cut_shapes import why_no_chain, why_no_cut


def shapes_of(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in layer.state_dict().items()}


CASES = [
    (nn.Conv2d(3, 8, 3), {"weight": (6, 2, 3, 3), "bias": (6,)}, None),
    (nn.Conv2d(3, 8, 3), {"weight": (6, 2, 3, 3), "bias": (5,)}, r"x\.bias is \(5,\)"),
    (nn.Conv2d(3, 8, 3), {"weight": (6, 2, 2, 3), "bias": (6,)}, "a kernel of"),
    (nn.Conv1d(8, 8, 3, groups=8), {"weight": (6, 1, 3), "bias": (6,)}, "do not divide into 8"),
    (nn.ConvTranspose2d(4, 8, 2), {"weight": (3, 5, 2, 2), "bias": (5,)}, None),
    (nn.ConvTranspose2d(4, 8, 2), {"weight": (3, 5, 2, 2), "bias": (3,)}, r"x\.bias is \(3,\)"),
    (nn.Linear(4, 8), {"weight": (6, 3), "bias": (6,)}, None),
    (nn.Linear(4, 8), {"weight": (6, 3), "bias": (3,)}, r"x\.bias is \(3,\)"),
    (nn.BatchNorm2d(8), {"weight": (5,), "running_var": (6,)}, r"x\.running_var is \(6,\)"),
    (nn.BatchNorm2d(8, affine=False), {"running_mean": (5,), "running_var": (6,)}, "running_var"),
    (nn.BatchNorm2d(8), {"running_mean": (5,), "num_batches_tracked": ()}, None),
    (nn.InstanceNorm2d(8, affine=True), {"weight": (5,), "bias": (6,)}, r"x\.bias is \(6,\)"),
    (nn.GroupNorm(4, 8), {"weight": (6,), "bias": (6,)}, "do not divide into 4 groups"),
    (nn.LayerNorm((8,)), {"weight": (6,), "bias": (5,)}, r"x\.bias is \(5,\)"),
    (nn.GRU(3, 4), {"weight_ih_l0": (3, 3)}, None),
]


@pytest.mark.parametrize(("layer", "new", "message"), CASES)
def test_vectors_have_one_length_and_kernels_stay(layer, new, message):
    groups = getattr(layer, "groups", getattr(layer, "num_groups", None))
    dense = shapes_of(layer)
    assert why_no_cut("x", layer, dense, dense, groups) is None
    found = why_no_cut("x", layer, dense, new, groups)
    if message is None:
        assert found is None
    else:
        assert re.search(message, found)


def test_a_depthwise_layer_follows_the_groups_of_the_file():
    layer = nn.Conv2d(8, 8, 3, groups=8)
    new = {"weight": (6, 1, 3, 3), "bias": (6,)}
    assert why_no_cut("x", layer, shapes_of(layer), new, 6) is None
    assert "do not divide into 4" in why_no_cut("x", layer, shapes_of(layer), new, 4)


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 4, 3)),
        nn.Flatten(), nn.Linear(4 * 9, 2),
    )  # fmt: skip


def test_what_follows_takes_what_comes_before():
    net = chain()
    shapes = shapes_of(net)
    assert why_no_chain(net, "", shapes, {}) is None
    norm = shapes | {f"1.{n}": (5,) for n in ("weight", "bias", "running_mean", "running_var")}
    assert why_no_chain(net, "", norm, {}) == "1 takes 5 channels, and 0 before it gives 8"
    conv = shapes | {"3.0.weight": (4, 7, 3, 3)}
    assert why_no_chain(net, "", conv, {}) == "3.0 takes 7 channels, and 0 before it gives 8"
    linear = shapes | {"5.weight": (2, 3)}
    assert why_no_chain(net, "", linear, {}) is None  # what Flatten makes of 4 is not known
    assert why_no_chain(nn.ModuleList(net), "", conv, {}) is None
