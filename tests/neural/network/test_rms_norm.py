import pytest
import torch
from torch import nn

from lightning_prune.neural.network.rms_norm import RMSNorm
from lightning_prune.surgery.reinitialize import reset_channels

CASES = [
    "rmsnorm_4d_eps1e-4",
    "rmsnorm_5d_eps1e-5",
    "rmsnorm_small_input",
    "rmsnorm_from_factory",
    "rmsnorm_noaffine",
]


@pytest.mark.parametrize("case", CASES)
def test_reproduces_the_reference(golden, case):
    norm = RMSNorm(6, eps=golden.cases[case]["eps"], affine="noaffine" not in case)
    golden.check(case, norm)


@pytest.mark.parametrize("dims", [(1,), (1, 2), (2, 3), (1, 2, 3)])
def test_norm_dims_against_float64(dims):
    torch.manual_seed(0)
    norm = RMSNorm(5, norm_dims=dims, eps=0.1)
    norm.gamma.data.normal_()
    norm.beta.data.normal_()
    x = torch.randn(2, 5, 3, 4, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    mean = wide.pow(2).mean(dims, keepdim=True)
    gamma = norm.gamma.detach().double().view(1, 5, 1, 1).requires_grad_()
    expected = wide / (mean + 0.1).sqrt() * gamma + norm.beta.detach().double().view(1, 5, 1, 1)
    out = norm(x)
    torch.testing.assert_close(out, expected.float())
    cotangent = torch.randn_like(x)
    (out * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    torch.testing.assert_close(x.grad, wide.grad.float())
    torch.testing.assert_close(norm.gamma.grad, gamma.grad.float().flatten())
    torch.testing.assert_close(norm.beta.grad, cotangent.sum((0, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    torch.manual_seed(0)
    norm = RMSNorm(8)
    x = (300 * torch.randn(2, 8, 5)).to(dtype)  # its square is beyond float16
    out = norm(x)
    assert out.dtype == dtype
    assert torch.equal(out, norm(x.float()).to(dtype))


def test_a_cut_needs_no_other_attribute():
    norm = RMSNorm(6, affine=False)
    norm.gamma = nn.Parameter(2 * norm.gamma[:4], requires_grad=False)
    assert norm.num_features == 4
    x = torch.randn(2, 4, 3)
    expected = 2 * x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(norm(x), expected)
    assert list(norm.state_dict()) == ["gamma"]
    assert not norm.gamma.requires_grad


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"num_features": 0}, "num_features=0: pass an integer of at least 1"),
        ({"num_features": 4, "norm_dims": ()}, "norm_dims"),
        ({"num_features": 4, "norm_dims": (0, 1)}, "not the batch"),
        ({"num_features": 4, "eps": -1.0}, "eps=-1.0"),
    ],
)
def test_refuses(named, message):
    with pytest.raises(ValueError, match=message):
        RMSNorm(**named)


def test_a_channel_that_starts_anew_has_a_fresh_scale() -> None:
    conv = torch.nn.Conv2d(2, 3, 1)
    for affine in (True, False):
        norm = RMSNorm(3, affine=affine)
        with torch.no_grad():
            norm.gamma.copy_(torch.tensor([0.2, 0.3, 0.4]))
        reset_channels(conv, torch.tensor([1]), norm=norm)
        # Without a learned scale it is what cuts have made of it, and stays.
        expected = torch.tensor([0.2, 1.0 if affine else 0.3, 0.4])
        assert torch.equal(norm.gamma.detach(), expected)
