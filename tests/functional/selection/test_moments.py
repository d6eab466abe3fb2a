import numpy as np
import pytest
import torch

from lightning_prune.functional import ClassMoments, class_moments, merge_moments
from lightning_prune.functional.selection.moments import ClassMoments as Moments

CLASSES = 5


def batch(seed: int, size: int, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(size, 7, generator=generator, dtype=torch.float64) * 3 + offset
    labels = torch.randint(0, CLASSES - 1, (size,), generator=generator)  # the last stays empty
    return samples, labels


def assert_close(a: ClassMoments, b: ClassMoments, tolerance: float = 1e-12) -> None:
    assert torch.equal(a.count, b.count)
    for name in ("mean", "variance", "mean_abs"):
        torch.testing.assert_close(
            getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equals_numpy_per_class(offset: float) -> None:
    samples, labels = batch(0, 400, offset)
    moments = class_moments(samples, labels, CLASSES)
    for k in range(CLASSES - 1):
        mine = samples[labels == k].numpy()
        assert moments.count[k] == len(mine)
        np.testing.assert_allclose(moments.mean[:, k], mine.mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(moments.variance[:, k], mine.var(0), rtol=1e-12)
        np.testing.assert_allclose(moments.mean_abs[:, k], np.abs(mine).mean(0), rtol=1e-13)
    assert moments.count[-1] == 0
    assert not torch.stack([moments.mean, moments.variance, moments.mean_abs])[..., -1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_accumulates_low_precision_in_float64(dtype: torch.dtype) -> None:
    samples, labels = batch(1, 300)
    low = samples.to(dtype)
    assert_close(
        class_moments(low, labels, CLASSES), class_moments(low.double(), labels, CLASSES), 0.0
    )


def test_streamed_equals_all_at_once() -> None:
    samples, labels = batch(2, 1000, offset=50.0)
    merged = class_moments(samples[:0], labels[:0], CLASSES)
    for part in range(0, 1000, 37):
        rows = slice(part, part + 37)
        merged = merge_moments(merged, class_moments(samples[rows], labels[rows], CLASSES))
    assert_close(merged, class_moments(samples, labels, CLASSES))


def test_merging_does_not_depend_on_the_order() -> None:
    parts = [class_moments(*batch(seed, 20 + 30 * seed, offset=seed), CLASSES) for seed in range(6)]
    forth, back = parts[0], parts[-1]
    for part in parts[1:]:
        forth = merge_moments(forth, part)
    for part in parts[-2::-1]:
        back = merge_moments(back, part)
    assert_close(forth, back)


def test_merging_pads_unknown_classes() -> None:
    samples, labels = batch(3, 100)
    low = class_moments(samples[labels < 2], labels[labels < 2], 2)
    high = class_moments(samples[labels >= 2], labels[labels >= 2], CLASSES)
    whole = class_moments(samples, labels, CLASSES)
    assert_close(merge_moments(low, high), whole)
    assert_close(merge_moments(high, low), whole)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 12345.678])
def test_repeated_value_has_no_variance(value: float) -> None:
    samples = torch.full((999, 3), value, dtype=torch.float64)
    labels = torch.arange(999) % 4
    moments = class_moments(samples, labels, 4)
    assert not moments.variance.any()
    assert not merge_moments(moments, moments).variance.any()
    assert torch.equal(moments.mean, samples[:4].T)


def test_rejects_what_does_not_fit() -> None:
    samples, labels = batch(4, 10)
    with pytest.raises(ValueError, match=r"allows 0\.\.1"):
        class_moments(samples, torch.full((10,), 2), 2)
    with pytest.raises(ValueError, match=r"allows 0\.\.4"):
        class_moments(samples, torch.full((10,), -1), CLASSES)
    with pytest.raises(ValueError, match=r"\(samples, channels\)"):
        class_moments(samples[0], labels, CLASSES)
    with pytest.raises(ValueError, match="one integer class"):
        class_moments(samples, labels[:5], CLASSES)
    with pytest.raises(ValueError, match="at least 1"):
        class_moments(samples, labels, 0)
    with pytest.raises(ValueError, match="7 and of 2 channels"):
        merge_moments(
            class_moments(samples, labels, CLASSES), class_moments(samples[:, :2], labels, CLASSES)
        )
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="mean_abs has shape"):
        Moments(torch.zeros(3, dtype=torch.float64), zeros, zeros, zeros[:1])
    with pytest.raises(ValueError, match="float64"):
        Moments(torch.zeros(3), zeros, zeros, zeros)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_on_a_gpu() -> None:
    samples, labels = batch(5, 500)
    on_gpu = class_moments(samples.cuda(), labels.cuda(), CLASSES)
    assert on_gpu.mean.is_cuda
    on_cpu = class_moments(samples, labels, CLASSES)
    assert_close(merge_moments(class_moments(samples[:0], labels[:0], CLASSES), on_gpu), on_cpu)
