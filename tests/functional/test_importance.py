import numpy as np
import pytest
import torch

from lightning_prune.functional import filter_norm, norm_scale


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (5, 4), (6, 2, 1, 3, 3)])
@pytest.mark.parametrize("p", [1, 2])
def test_equals_numpy(shape: tuple[int, ...], p: int) -> None:
    weight = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    flat = weight.detach().double().numpy().reshape(shape[0], -1)
    ours = filter_norm(weight, p)
    assert not ours.requires_grad
    np.testing.assert_allclose(ours, np.linalg.norm(flat, ord=p, axis=1), rtol=1e-12)


def test_norm_scale_is_the_absolute_value() -> None:
    norm = torch.nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([-1.5, 0.0, 2.0])
    assert norm_scale(norm.weight).tolist() == [1.5, 0.0, 2.0]


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"channels, \.\.\."):
        filter_norm(torch.zeros(3))
    with pytest.raises(ValueError, match="choose 1"):
        filter_norm(torch.zeros(3, 3), p=3)
    with pytest.raises(ValueError, match=r"\(channels,\)"):
        norm_scale(torch.zeros(3, 3))
