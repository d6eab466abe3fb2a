import pytest
import torch

from lightning_prune.neural.network.byte_dropout import ByteDropout, keep_mask
from lightning_prune.neural.network.frames import stack_frames, unstack_frames


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_rate_and_scale(p):
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1 << 20), p)
    kept = mask > 0
    # Five standard errors of the mean of so many independent choices.
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * (p * (1 - p) / (1 << 20)) ** 0.5
    torch.testing.assert_close(
        mask[kept], torch.full_like(mask[kept], 1 / (1 - p)), rtol=2e-4, atol=0
    )
    assert abs(mask.double().mean().item() - 1) < 5 * (p / (1 - p) / (1 << 20)) ** 0.5


def test_choices_are_independent_of_their_neighbours():
    torch.manual_seed(0)
    kept = (keep_mask(torch.empty(1 << 20), 0.5) > 0).double() - 0.5
    for lag in range(1, 9):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 * 0.25 / (1 << 10)


def test_gradient_is_the_mask_and_the_layout_stays():
    torch.manual_seed(0)
    x = unstack_frames(stack_frames(torch.rand(2, 3, 4, 5, 6) + 1), 2).requires_grad_()
    out = ByteDropout(0.5)(x)
    assert out.stride() == x.stride()
    out.sum().backward()
    torch.testing.assert_close(out, x * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


def test_the_seed_decides():
    dropout, x = ByteDropout(0.5), torch.ones(1000)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(dropout(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_eval_and_zero_return_the_input():
    x = torch.ones(3)
    assert ByteDropout(0.5).eval()(x) is x
    assert ByteDropout(0.0)(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    out = ByteDropout(0.5)(torch.ones(1000, dtype=dtype))
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {0.0, 2.0}
