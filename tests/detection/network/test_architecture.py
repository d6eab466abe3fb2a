import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_prune.detection.network.architecture import BACKBONE_BLOCKS, Architecture
from lightning_prune.detection.network.blocks import Conv
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.network.reset_network import YOLOv8Reset

SMALL = {"widths": [8, 8, 8, 8, 8], "depths": [1, 1, 1]}
BUILT = SMALL | {
    "activation": "leaky_relu(0.1)",
    "activations": {"backbone.p5.spp.conv1": "identity"},
    "shortcuts": ["backbone.p3.csp", "neck.top_down3"],
    "norm_eps": 1e-5,
    "norm_momentum": 0.1,
    "pool_kernel": 3,
    "pools": 2,
    "pool_shortcut": True,
    "class_width": 12,
    "box_width": 10,
}


def test_the_defaults_are_as_published():
    assert Architecture().changes() == {}
    assert Architecture.of({"activation": None, "pools": 3}).changes() == {}
    assert Architecture.of(BUILT).changes() == BUILT
    assert "architecture" not in YOLOv8("n", 2).state_dict()


@pytest.mark.parametrize("kind", [YOLOv8, YOLOv8Reset])
def test_a_network_is_built_as_it_says(kind):
    network = kind("custom", 3, architecture=BUILT)
    convs = {name: m for name, m in network.named_modules() if isinstance(m, Conv)}
    assert type(convs.pop("backbone.p5.spp.conv1").act) is nn.Identity
    assert {(type(m.act), m.act.negative_slope) for m in convs.values()} == {(nn.LeakyReLU, 0.1)}
    assert {(m.norm.eps, m.norm.momentum) for m in convs.values()} == {(1e-5, 0.1)}
    adding = {n for n, m in network.named_modules() if getattr(m, "add", False)}
    assert adding == {
        "backbone.p3.csp.bottlenecks.0", "neck.top_down3.bottlenecks.0", "backbone.p5.spp",
    }  # fmt: skip
    spp = network.backbone.p5.spp
    assert (spp.pool.kernel_size, spp.pools, spp.conv2.conv.in_channels) == (3, 2, 12)
    head = network.head
    assert (head.boxes[0][0].conv.out_channels, head.classes[0][0].conv.out_channels) == (10, 12)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7, 84)


def test_copies_and_pickles_keep_it_and_others_are_refused():
    network = YOLOv8("custom", 3, architecture=BUILT)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        other.load_state_dict(network.state_dict())
        assert other.architecture == network.architecture
    other = YOLOv8("custom", 3, architecture=BUILT | {"activation": "relu"})
    with pytest.raises(RuntimeError, match=r"the file's network has architecture=.*leaky_relu"):
        other.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activatoin": "relu"}, "activatoin is unknown: did you mean activation"),
        ("relu", "pass a mapping"),
        ({"activation": 3}, "architecture.activation=3"),
        ({"activation": "what"}, "activation='what' is unknown"),
        ({"activations": {"backbone.p5.spp.conv9": "relu"}}, "did you mean backbone.p5.spp.conv"),
        ({"activations": ["relu"]}, "a mapping of convolutions"),
        ({"shortcuts": ["p3"]}, "the network has no p3"),
        ({"shortcuts": "all"}, "a list of CSP blocks"),
        ({"norm_eps": -1}, "norm_eps=-1: pass a number in"),
        ({"norm_eps": float("nan")}, "norm_eps=nan"),
        ({"norm_momentum": 2}, "norm_momentum=2"),
        ({"pool_kernel": 4}, "pool_kernel=4: pass an odd number"),
        ({"pools": 17}, "pools=17"),
        ({"pool_shortcut": 1}, "pool_shortcut=1: pass true or false"),
        ({"class_width": 0}, "class_width=0: pass an integer from 1"),
        ({"box_width": True}, "box_width=True"),
        ({"widths": [8, 8, 8, 8]}, "widths=.*5 integers"),
        ({"widths": [8, 8, 8, 8, 9]}, "widths=.*even"),
        ({"widths": [8, 8, 8, 8, 10**9]}, "up to 2048"),
        ({"depths": [1, 1, 65]}, "3 integers from 0 to 64"),
    ],
)
def test_refuses_what_is_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        YOLOv8("n", 2, architecture=given)


def test_custom_needs_widths_and_depths():
    with pytest.raises(ValueError, match="size='custom' needs widths and depths"):
        YOLOv8("custom", 2, architecture={"widths": [8, 8, 8, 8, 8]})


def test_the_published_blocks_with_shortcuts_are_those_of_the_backbone():
    network = YOLOv8("n", 2)
    blocks = {n.rpartition(".bottlenecks")[0] for n, m in network.named_modules() if
              ".bottlenecks." in n and getattr(m, "add", False)}  # fmt: skip
    assert blocks == set(BACKBONE_BLOCKS)
