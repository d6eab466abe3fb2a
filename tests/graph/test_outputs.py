import copy
import random

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.outputs import layer_outputs

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """A convolution, with or without a norm, and any function behind it."""

    def __init__(self, function, norm=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.norm(self.conv(x)))


def described(model, example=X):
    """Return (norm, activated, watched, whether a function is still to be applied) by layer."""
    return {
        o.layer: (o.norm, o.activated, o.watched, o.activation is not None)
        for o in layer_outputs(model, example).values()
    }


def seen_output(model, name, example=X):
    """Compute the output of a layer from what is said of it: watch, then apply the rest."""
    output = layer_outputs(model, example)[name]
    caught = []
    modules = dict(model.named_modules())
    handle = modules[output.watched].register_forward_hook(
        lambda _m, _i, out: caught.append(out.clone())
    )
    with torch.no_grad():
        model(example)
    handle.remove()
    return caught[0] if output.activation is None else output.activation(caught[0])


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.ELU(), nn.CELU(), nn.SELU(),
        nn.LeakyReLU(0.1), nn.Hardswish(), nn.Hardtanh(), nn.ReLU6(), nn.Mish(), nn.Softplus(),
        nn.Softsign(), nn.Tanh(), nn.PReLU(5), nn.Threshold(0.1, 0.0),
    ],
    ids=lambda a: f"{type(a).__name__}{'_' if getattr(a, 'inplace', False) else ''}",
)  # fmt: skip
@pytest.mark.parametrize("norm", [False, True])
def test_activation_modules(activation, norm):
    parts = [nn.Conv2d(3, 5, 3), *([nn.BatchNorm2d(5)] if norm else []), activation]
    net = nn.Sequential(*parts)
    assert described(net) == {"0": ("1" if norm else None, True, str(len(parts) - 1), False)}


FUNCTIONS = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: x.relu_(),
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "keyword": lambda x: F.relu(input=x),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clamp_(0, 6),
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "relu6": F.relu6,
    "dropout between": lambda x: F.relu(F.dropout(x, 0.5, training=False)),
}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_functions(name, norm):
    net = Functional(FUNCTIONS[name], norm).eval()
    before = "norm" if norm else "conv"
    assert described(net) == {"conv": ("norm" if norm else None, True, before, True)}
    expected = net(X)
    torch.testing.assert_close(seen_output(net, "conv"), expected, rtol=0, atol=0)


OTHERS = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(1),
    "nothing": lambda x: x,
    "a sum": lambda x: F.relu(x + 1),
    "a sum in place": lambda x: F.relu(x.add_(1)),
    "an in-place change of a part": lambda x: F.relu(_zero_a_part(x)),
    "a view": lambda x: F.relu(x.flatten(1)),
    "bounds by channel": lambda x: x.clamp(min=torch.zeros(5, 1, 1)),
    "a second consumer": lambda x: F.relu(x) + x,
    "a second consumer, first": lambda x: x * 2 + F.relu(x),
    "a gate of its own": lambda x: x * F.tanh(x),
}


def _zero_a_part(x):
    x[:, :, 0] = 0
    return x


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_activation_of_the_layer(name, norm):
    net = Functional(OTHERS[name], norm)
    before = "norm" if norm else "conv"
    assert described(net) == {"conv": ("norm" if norm else None, False, before, False)}


def test_parameters_by_channel_need_the_module():
    """After a cut a function would continue with those it had."""
    weight = nn.Parameter(torch.full((5,), 0.2))
    net = Functional(lambda x: F.prelu(x, weight))
    assert described(net) == {"conv": (None, False, "conv", False)}


def test_shared_activation_modules_are_applied_by_hand():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1)
            self.bn = nn.BatchNorm2d(4)
            self.act = nn.LeakyReLU(0.2, inplace=True)

        def forward(self, x):
            return self.act(self.bn(self.b(self.act(self.a(x)))))

    net = Twice().eval()
    assert described(net) == {"a": (None, True, "a", True), "b": ("bn", True, "bn", True)}
    torch.testing.assert_close(seen_output(net, "b"), net(X), rtol=0, atol=0)
    torch.testing.assert_close(seen_output(net, "a"), F.leaky_relu(net.a(X), 0.2), rtol=0, atol=0)


def test_an_activation_that_reads_something_else_too():
    class Input(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.conv = nn.ReLU(), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.act(self.conv(self.act(x)))

    assert described(Input()) == {"conv": (None, True, "conv", True)}


def test_a_norm_of_two_layers_belongs_to_none():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)
            self.norm, self.act = nn.BatchNorm2d(5), nn.ReLU()

        def forward(self, x):
            return self.act(self.norm(self.a(x))) + self.act(self.norm(self.b(x)))

    none = (None, False)
    assert described(Shared()) == {"a": (*none, "a", False), "b": (*none, "b", False)}


def test_a_layer_that_is_called_twice_is_described_by_its_first_call():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x):
            return self.conv(self.act(self.norm(self.conv(x))))

    assert described(Head()) == {"conv": ("norm", True, "act", False)}


def test_a_convolution_between_pre_activations():
    """What the shortcut reads is not the convolution's own activation."""

    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 5, 3, padding=1)
            self.bn1, self.conv1 = nn.BatchNorm2d(5), nn.Conv2d(5, 6, 1)
            self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1)

        def forward(self, x):
            x = self.stem(x)
            y = self.conv1(F.relu(self.bn1(x)))
            return x + self.conv2(F.relu(self.bn2(y)))

    assert described(PreActivation()) == {
        "stem": (None, False, "stem", False),
        "conv1": ("bn2", True, "bn2", True),
        "conv2": (None, False, "conv2", False),
    }


@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_added_is_not_the_layers_own(in_place):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x):
            out = self.norm(self.conv(x))
            if in_place:
                out += x
            else:
                out = out + x
            return self.act(out)

    assert described(Residual()) == {"conv": ("norm", False, "norm", False)}


def test_norms_of_other_kinds_and_linear_layers():
    class LayerNorm(nn.LayerNorm):
        """Over the channels of a picture, in its own words."""

        def forward(self, x):
            mean = x.mean(1, keepdim=True)
            x = (x - mean) / ((x - mean).square().mean(1, keepdim=True) + self.eps).sqrt()
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    for norm in (nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, affine=True), LayerNorm(6)):
        net = nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.SiLU())
        assert described(net) == {"0": ("1", True, "2", False)}
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    assert described(net, torch.zeros(3, 4)) == {
        "0": ("1", True, "2", False), "3": (None, False, "3", False)
    }  # fmt: skip
    for norm in (nn.LayerNorm(6), nn.RMSNorm(6)):
        net = nn.Sequential(nn.Linear(4, 6), norm, nn.GELU())
        assert described(net, torch.zeros(2, 3, 4)) == {"0": ("1", True, "2", False)}


def test_modules_that_do_more_than_an_activation():
    class Swish(nn.Module):
        """Elementwise as a whole: the layer's activation."""

        def forward(self, x):
            return x * torch.tanh(F.softplus(x))

    class Mixing(nn.Module):
        """An activation and a product with a bare parameter: of other channels."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 5))

        def forward(self, x):
            return F.conv2d(F.relu(x), self.weight[:, :, None, None])

    assert described(nn.Sequential(nn.Conv2d(3, 5, 1), Swish())) == {"0": (None, True, "1", False)}
    mixed = nn.Sequential(nn.Conv2d(3, 5, 1), Mixing())
    assert described(mixed) == {"0": (None, True, "0", True)}
    torch.testing.assert_close(seen_output(mixed, "0"), F.relu(mixed[0](X)), rtol=0, atol=0)


def test_depthwise_transposed_and_nested():
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Hardswish()),
        nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Hardswish()),
        nn.ModuleDict({"up": nn.ConvTranspose2d(6, 4, 2)})["up"],
        nn.ReLU(),
    )
    assert described(net) == {
        "0.0": ("0.1", True, "0.2", False),
        "1.0": ("1.1", True, "1.2", False),
        "2": (None, True, "3", False),
    }


@pytest.mark.parametrize("size", ["n", "s"])
def test_yolov8(size):
    """Every block of convolution, norm and SiLU; only the head's last layers stand alone."""
    found = described(YOLOv8(size, 2), torch.zeros(1, 3, 64, 64))
    last = {f"head.{kind}.{level}.2" for kind in ("boxes", "classes") for level in range(3)}
    blocks = {n for n, m in YOLOv8(size, 2).named_modules() if isinstance(m, nn.Conv2d)} - last
    blocks = {name for name in blocks if "dfl" not in name}
    assert found.keys() == blocks | last
    for name in last:
        assert found[name] == (None, False, name, False)
    for name in blocks:
        block = name.removesuffix(".conv")
        norm, activated, watched, by_hand = found[name]
        assert (norm, activated, by_hand) == (f"{block}.norm", True, False)
        assert watched.startswith(block)
        assert watched not in (name, norm)


def test_resnet18():
    """One ReLU, in place, for two convolutions of a block; the second has a sum before it."""
    net = torchvision.models.resnet18().eval()
    found = described(net, torch.zeros(1, 3, 32, 32))
    assert found["conv1"] == ("bn1", True, "relu", False)
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            assert found[f"{name}.conv1"] == (f"{name}.bn1", True, f"{name}.bn1", True)
            assert found[f"{name}.conv2"] == (f"{name}.bn2", False, f"{name}.bn2", False)
    assert found["layer2.0.downsample.0"][1:] == (False, "layer2.0.downsample.1", False)
    assert found["fc"] == (None, False, "fc", False)
    assert len(found) == 21


def test_mobilenet():
    net = torchvision.models.mobilenet_v3_small().eval()
    found = described(net, torch.zeros(1, 3, 32, 32))
    assert found["features.0.0"] == ("features.0.1", True, "features.0.2", False)
    squeeze = "features.1.block.1"
    assert found[f"{squeeze}.fc1"] == (None, True, f"{squeeze}.activation", False)
    assert found[f"{squeeze}.fc2"] == (None, False, f"{squeeze}.fc2", False)
    assert found["features.1.block.0.0"][:2] == ("features.1.block.0.1", True)  # depthwise
    assert found["features.1.block.2.0"][:2] == ("features.1.block.2.1", False)  # projection
    assert found["classifier.0"] == (None, True, "classifier.1", False)
    assert found["classifier.3"] == (None, False, "classifier.3", False)


def test_layers_whose_weight_is_computed():
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 5, 1)), nn.ReLU())
    assert described(net) == {"0": (None, True, "1", False)}


def test_transformer_layer():
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = described(net, torch.zeros(1, 3, 8))
    assert found["linear1"] == (None, True, "linear1", True)
    assert found["linear2"] == (None, False, "linear2", False)


def test_inputs_of_several_kinds():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(4, 3)

        def forward(self, x, y):
            return torch.relu(self.a(x)) + self.b(y)

    x, y = torch.zeros(1, 2), torch.zeros(1, 4)
    expected = {"a": (None, True, "a", True), "b": (None, False, "b", False)}
    assert described(Two(), (x, y)) == described(Two(), {"x": x, "y": y}) == expected
    outputs = layer_outputs(Two(), (y, x), lambda net, given: net(given[1], given[0]))
    assert list(outputs) == ["a", "b"]


def test_inference_mode_of_the_forward():
    def forward(net, x):
        with torch.inference_mode():
            return net(x)

    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU())
    assert layer_outputs(net, X, forward)["0"].watched == "2"


def test_compiled_models_have_plain_names():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU())
    compiled = torch.compile(net, backend="eager")
    assert described(compiled) == {"0": ("1", True, "2", False)}


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Conv2d(4 if fails else 5, 2, 1),
    )  # fmt: skip
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    x = X.clone()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            layer_outputs(net, x)
    else:
        layer_outputs(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert not net[0].weight.requires_grad
    assert net[4].weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.equal(x, X)
