import pytest
import torch
from torch import nn

from lightning_prune.detection.network.activations import (
    _KINDS,
    canonical_activation,
    describe_activation,
    make_activation,
)

MODULES = [
    (nn.SiLU(), "silu"),
    (nn.ReLU(inplace=True), "relu"),
    (nn.ReLU6(), "relu6"),
    (nn.LeakyReLU(), "leaky_relu"),
    (nn.LeakyReLU(0.1), "leaky_relu(0.1)"),
    (nn.LeakyReLU(1 / 3), "leaky_relu(0.3333333333333333)"),
    (nn.ELU(0.5), "elu(0.5)"),
    (nn.CELU(2.0), "celu(2)"),
    (nn.SELU(), "selu"),
    (nn.GELU(), "gelu"),
    (nn.GELU("tanh"), "gelu(tanh)"),
    (nn.Hardswish(), "hardswish"),
    (nn.Hardsigmoid(), "hardsigmoid"),
    (nn.Hardtanh(0, 6), "hardtanh(0, 6)"),
    (nn.Mish(), "mish"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.Tanh(), "tanh"),
    (nn.Softplus(2), "softplus(2, 20)"),
    (nn.Identity(), "identity"),
]


@pytest.mark.parametrize(("module", "text"), MODULES, ids=[text for _, text in MODULES])
def test_a_module_its_text_and_the_module_made_of_it_are_one(module, text):
    kind = type(module)
    path = f"{kind.__module__}.{kind.__name__}"
    assert describe_activation(path, module.__dict__) == text
    assert canonical_activation(text) == text
    made = make_activation(text)
    assert type(made) is kind
    x = torch.linspace(-8, 25, 100, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    # Behind an operation, as in a network: some work in place.
    one, other = module(x * 1), made(y * 1)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    one.square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=0)


def test_every_kind_is_among_them():
    assert {text.partition("(")[0] for _, text in MODULES} == set(_KINDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swish", "activation='swish' is unknown: pass one of silu, relu"),
        ("relu(1)", "has 1 numbers: relu takes none"),
        ("leaky_relu(a)", "negative_slope='a' is not possible"),
        ("leaky_relu(nan)", "negative_slope='nan'"),
        ("gelu(fast)", "approximate='fast'"),
        ("leaky_relu(0.1", "is unknown"),
        ("", "is unknown"),
    ],
)
def test_refuses_other_texts(text, message):
    with pytest.raises(ValueError) as caught:
        make_activation(text)
    assert message in str(caught.value)
