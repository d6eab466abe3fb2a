import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.policies.layers.resettable_layers import resettable_layers

X = torch.zeros(2, 3, 8, 8)


class Mixed(nn.Module):
    """Layers with and without an activation, and some that cannot be reset."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.bare = nn.Conv2d(4, 4, 1)
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.computed = parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.grouped = nn.ConvTranspose2d(4, 4, 1, groups=2)
        self.tied = nn.Conv2d(4, 4, 1)
        self.tied_too = nn.Conv2d(4, 4, 1)
        self.tied_too.weight = self.tied.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bare(F.relu(self.first(x)))
        for layer in (self.frozen, self.computed, self.grouped, self.tied, self.tied_too):
            x = F.relu(layer(x))
        return self.head(x.mean((2, 3)))


def chosen(patterns, net=None):
    net = Mixed() if net is None else net
    return list(resettable_layers(net, layer_outputs(net, X), patterns))


def test_by_default_those_with_an_activation_that_can_be_reset():
    assert chosen(None) == ["first"]
    net = YOLOv8("n", 2)
    outputs = layer_outputs(net, torch.zeros(1, 3, 64, 64))
    found = resettable_layers(net, outputs, None)
    assert found.keys() == outputs.keys() - {
        f"head.{kind}.{level}.2" for kind in ("boxes", "classes") for level in range(3)
    }
    assert all(found[name] is outputs[name] for name in found)


def test_names_and_patterns_in_the_order_of_the_forward_pass():
    assert chosen(["head", "first"]) == ["first", "head"]
    assert chosen(["bare"]) == ["bare"]
    assert chosen(["*"]) == ["first", "bare", "head"]  # passes over what cannot be
    assert chosen(["[bf]*", "bare"]) == ["first", "bare"]
    assert chosen([]) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("frozen", "its weight is frozen"),
        ("computed", "its weight is computed"),
        ("grouped", "has no row for each channel"),
        ("tied", "it shares a parameter with tied_too"),
        ("tied_*", "tied_too cannot be reset: it shares a parameter with tied"),
    ],
)
def test_a_named_layer_that_cannot_be_reset(name, reason):
    with pytest.raises(ValueError, match=f"layers={name!r}: ".replace("*", r"\*") + f".*{reason}"):
        chosen(["first", name])


def test_an_unknown_name():
    with pytest.raises(
        ValueError, match="matches no convolution or linear layer: did you mean 'fi"
    ):
        chosen(["firts"])
    with pytest.raises(
        ValueError, match=r"layers='zzz\.\*' matches no convolution or linear layer$"
    ):
        chosen(["zzz.*"])


def test_compiled_models():
    net = torch.compile(Mixed(), backend="eager")
    assert chosen(None, net) == ["first"]
    with pytest.raises(ValueError, match="it shares a parameter with tied_too"):
        chosen(["tied"], net)
