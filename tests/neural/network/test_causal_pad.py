import pytest
import torch
from torch.nn import functional as F

from lightning_prune.neural.network.causal_pad import causal_pad


@pytest.mark.parametrize("past", [0, 1, 4])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (3, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (1, 2, 1, 1, 1)])
def test_equals_torchs_padding_with_its_gradient(past, rows, columns, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = F.pad(x, (columns, columns, rows, rows, past, 0), mode="replicate")
    cotangent = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, cotangent)
    out = causal_pad(x, past, rows, columns)
    assert torch.equal(out, expected)
    (got,) = torch.autograd.grad(out, x, cotangent)
    torch.testing.assert_close(got, wanted)
