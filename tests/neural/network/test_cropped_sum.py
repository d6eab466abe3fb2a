import pytest
import torch

from lightning_prune.neural.network.cropped_sum import cropped_sum


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, 3, 4, 5, 5), (2, 3, 4, 5, 5)),
        ((2, 3, 4, 6, 8), (2, 3, 2, 5, 5)),
        ((1, 1, 2, 3, 8), (1, 1, 5, 6, 7)),
    ],
)
def test_values_and_gradients(first, second):
    torch.manual_seed(0)
    a = torch.randn(first, dtype=torch.float64, requires_grad=True)
    b = torch.randn(second, dtype=torch.float64, requires_grad=True)
    time, height, width = (min(x, y) for x, y in zip(first[2:], second[2:], strict=True))

    def middle(x):
        top, left = (x.shape[3] - height) // 2, (x.shape[4] - width) // 2
        return x[:, :, -time:, top : top + height, left : left + width]

    torch.testing.assert_close(cropped_sum(a, b), middle(a) + middle(b))
    assert torch.autograd.gradcheck(cropped_sum, (a, b))


def test_one_of_them_needs_no_gradient():
    a, b = torch.randn(1, 1, 3, 4, 4), torch.randn(1, 1, 2, 3, 3, requires_grad=True)
    cropped_sum(a, b).sum().backward()
    assert torch.equal(b.grad, torch.ones_like(b))
