import math

import pytest
import torch
from torch.nn import functional as F

from lightning_prune.functional.softened import softened_divergence


def test_value_by_hand():
    # softmax of (0, ln 3) / 1 is (1/4, 3/4); of (0, 0) it is (1/2, 1/2).
    logits, dense = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert softened_divergence(logits, dense, 1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_torchs_divergence(temperature: float):
    torch.manual_seed(0)
    logits, dense = torch.randn(6, 5), torch.randn(6, 5)
    parts = F.log_softmax(logits / temperature, 1), F.softmax(dense / temperature, 1)
    expected = F.kl_div(*parts, reduction="batchmean") * temperature**2
    assert torch.allclose(softened_divergence(logits, dense, temperature), expected, atol=1e-6)


def test_pixels_count_like_samples():
    torch.manual_seed(0)
    logits, dense = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    flat = [v.movedim(1, -1).reshape(-1, 3) for v in (logits, dense)]
    assert torch.allclose(softened_divergence(logits, dense), softened_divergence(*flat))


def test_gradient():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    dense = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: softened_divergence(z, dense), (logits,))


def test_half_precision_is_computed_in_float32():
    big = torch.tensor([[30000.0, -30000.0]], dtype=torch.float16)
    found = softened_divergence(big, -big, 1.0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(60000.0)
