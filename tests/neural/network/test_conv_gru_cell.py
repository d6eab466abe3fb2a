import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_prune.neural.network.conv_gru_cell import ConvGRUCell


class Wrapped(nn.Module):
    """The reference names its cell ``cell``."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, h):
        return self.cell(x, h)


@pytest.mark.parametrize("case", ["k3", "k5", "no_layer_norm", "depthwise", "hid_gt_32"])
def test_reproduces_the_reference(golden, case):
    settings = golden.cases[f"gru_cell_{case}"]
    cell = ConvGRUCell(
        settings["in_ch"],
        settings["hid"],
        settings["k"],
        use_layer_norm=settings.get("use_layer_norm", True),
        use_depthwise=settings.get("use_depthwise", False),
    )
    golden.check(f"gru_cell_{case}", Wrapped(cell))


@pytest.mark.parametrize("candidate", ["fixed", "standard", "missing"])
@pytest.mark.parametrize("groups", [1, 2])
def test_candidates_against_the_formulas(candidate, groups):
    torch.manual_seed(0)
    cell = ConvGRUCell(
        4, 6, use_grouped=groups > 1, num_groups=groups, candidate=candidate
    ).double()
    cell.layer_norm.weight.data.normal_()
    x, h = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 6, 5, 5).double()
    of_x = F.conv2d(x, cell.conv_x.weight, cell.conv_x.bias, padding=1, groups=groups)
    of_h = F.conv2d(h, cell.conv_h.weight, padding=1, groups=groups)
    of_h = F.group_norm(of_h, 6, cell.layer_norm.weight, cell.layer_norm.bias)
    (zx, rx, nx), (zh, rh, nh) = of_x.split(6, 1), of_h.split(6, 1)
    z, r = (zx + zh).sigmoid(), (rx + rh).sigmoid()
    new = {
        "fixed": nx + nh + r * h,
        "standard": nx + r * nh,
        "missing": nx + nh,
    }[candidate].tanh()
    torch.testing.assert_close(cell(x, h), (1 - z) * h + z * new)


@pytest.mark.parametrize("candidate", ["fixed", "standard", "missing"])
@pytest.mark.parametrize("norm", [True, False])
def test_gradients(candidate, norm):
    torch.manual_seed(0)
    cell = ConvGRUCell(2, 3, use_layer_norm=norm, candidate=candidate).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    h = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cell, (x, h))


def test_recurrent_weights_start_orthogonal():
    torch.manual_seed(0)
    cell = ConvGRUCell(2, 4)
    rows = cell.conv_h.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(12), atol=1e-5, rtol=0)
    cell = ConvGRUCell(2, 4, init="default")
    rows = cell.conv_h.weight.detach().flatten(1)
    assert not torch.allclose(rows @ rows.T, torch.eye(12), atol=1e-2)


def test_depthwise_has_a_tenth_to_a_fifth_of_the_parameters():
    counts = [
        sum(p.numel() for p in ConvGRUCell(288, 256, use_depthwise=depthwise).parameters())
        for depthwise in (True, False)
    ]
    assert 0.1 <= counts[0] / counts[1] <= 0.2


@pytest.mark.parametrize(
    ("sizes", "named", "message"),
    [
        ((4, 40), {}, "hidden_channels=40.*divisible by the 32 groups"),
        ((4, 6), {"use_depthwise": True, "use_grouped": True}, "set one of them to false"),
        ((4, 6), {"use_grouped": True, "num_groups": 4}, "num_groups=4 does not divide"),
        ((3, 6), {"use_grouped": True, "num_groups": 2}, "num_groups=2 does not divide"),
        ((4, 6, 4), {}, "kernel_size=4: pass an odd"),
        ((4, 6), {"candidate": "slow"}, "pass 'fixed', 'standard' or 'missing'"),
        ((4, 6), {"init": "xavier"}, "pass 'orthogonal' or 'default'"),
        ((0, 6), {}, "pass an integer of at least 1"),
    ],
)
def test_refuses(sizes, named, message):
    with pytest.raises(ValueError, match=message):
        ConvGRUCell(*sizes, **named)


def test_any_width_without_the_norm():
    assert ConvGRUCell(4, 40, use_layer_norm=False).conv_h.weight.shape == (120, 40, 3, 3)
