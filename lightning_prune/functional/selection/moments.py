"""Class-wise moments of activations: what is kept instead of the activations themselves."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassMoments:
    """Moments of C channels over the samples of K classes, all float64 on one device.

    The size is O(C K) however many samples went in. An empty class holds zeros.

    Attributes:
        count: (K,), samples seen of each class.
        mean: (C, K), mean activation.
        variance: (C, K), population variance (divided by the count, not by count - 1).
        mean_abs: (C, K), mean absolute activation.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    mean_abs: Tensor

    def __post_init__(self) -> None:
        """Reject shapes and types that do not belong together."""
        shape = (*self.mean.shape[:1], self.count.numel())
        for name in ("mean", "variance", "mean_abs"):
            value: Tensor = getattr(self, name)
            if value.shape != shape or self.count.dim() != 1:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)} beside a count of shape "
                    f"{tuple(self.count.shape)}: pass (channels, classes) and (classes,)"
                )
        if any(v.dtype != torch.float64 for v in (self.count, self.mean, self.variance)):
            raise ValueError("moments must be float64: use class_moments() to compute them")

    @property
    def channels(self) -> int:
        """Return the number of channels C."""
        return self.mean.shape[0]

    @property
    def num_classes(self) -> int:
        """Return the number of classes K."""
        return self.count.numel()


def class_moments(samples: Tensor, labels: Tensor, num_classes: int) -> ClassMoments:
    r"""Compute count, mean, population variance and mean absolute value of every class.

    .. math:: m_{ck} = \frac{1}{n_k} \sum_{i: y_i = k} a_{ic}, \quad
              v_{ck} = \frac{1}{n_k} \sum_{i: y_i = k} (a_{ic} - m_{ck})^2

    Sums run in float64 in two passes (mean first, then deviations), and the mean is corrected by
    the mean of its residuals: samples of one repeated value have a variance of exactly 0.

    Args:
        samples: (N, C) activations a of any floating type, on any device; N may be 0.
        labels: (N,) integer classes y in 0..K-1.
        num_classes: K.

    Returns:
        Moments on the device of the samples (on the CPU where the device knows no float64).

    Raises:
        ValueError: If the shapes disagree or a label lies outside 0..K-1.

    >>> moments = class_moments(torch.tensor([[0.0], [2.0], [-5.0]]), torch.tensor([0, 0, 1]), 2)
    >>> moments.mean.tolist(), moments.variance.tolist(), moments.mean_abs.tolist()
    ([[1.0, -5.0]], [[1.0, 0.0]], [[1.0, 5.0]])
    """
    _check_samples(samples, labels, num_classes)
    if samples.device.type == "mps":  # no float64 there
        samples = samples.cpu()
    labels = labels.to(device=samples.device, dtype=torch.int64)
    shape = (num_classes, samples.shape[1])
    mean, variance, mean_abs = torch.zeros(
        3, *shape, dtype=torch.float64, device=samples.device
    ).unbind()
    count = torch.bincount(labels, minlength=num_classes)
    # Class by class: the cost does not grow with K, and sums have a fixed order on a GPU too.
    parts = torch.split(samples.detach()[labels.argsort(stable=True)], count.tolist())
    for k, part in enumerate(parts):
        if len(part):
            values = part.to(torch.float64)
            mean[k] = values.mean(0)
            mean[k] += (values - mean[k]).mean(0)
            variance[k] = (values - mean[k]).square().mean(0)
            mean_abs[k] = values.abs().mean(0)
    return ClassMoments(count.to(torch.float64), mean.T, variance.T, mean_abs.T)


def merge_moments(a: ClassMoments, b: ClassMoments) -> ClassMoments:
    r"""Merge the moments of two disjoint sets of samples exactly.

    .. math:: m = m_a + \delta \frac{n_b}{n}, \quad
              v = \frac{n_a v_a + n_b v_b}{n} + \delta^2 \frac{n_a n_b}{n^2}, \quad
              \delta = m_b - m_a,\; n = n_a + n_b

    Classes that only one side knows count as empty on the other. The result lies on a's device.

    Raises:
        ValueError: If the numbers of channels differ.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances", Stanford STAN-CS-79-773.

    >>> labels = torch.zeros(2, dtype=torch.int64)
    >>> a = class_moments(torch.tensor([[0.0], [2.0]]), labels, 1)
    >>> b = class_moments(torch.tensor([[4.0], [6.0]]), labels, 1)
    >>> merged = merge_moments(a, b)
    >>> merged.count.item(), merged.mean.item(), merged.variance.item()
    (4.0, 3.0, 5.0)
    """
    if a.channels != b.channels:
        raise ValueError(f"cannot merge moments of {a.channels} and of {b.channels} channels")
    num_classes = max(a.num_classes, b.num_classes)
    a, b = _padded(a, num_classes, a.count.device), _padded(b, num_classes, a.count.device)
    count = a.count + b.count
    weight_a, weight_b = a.count / count.clamp(min=1.0), b.count / count.clamp(min=1.0)
    delta = b.mean - a.mean
    return ClassMoments(
        count=count,
        mean=a.mean + delta * weight_b,
        variance=(
            a.variance * weight_a + b.variance * weight_b + delta.square() * weight_a * weight_b
        ),
        mean_abs=a.mean_abs * weight_a + b.mean_abs * weight_b,
    )


def _check_samples(samples: Tensor, labels: Tensor, num_classes: int) -> None:
    if samples.dim() != 2 or not samples.is_floating_point():
        raise ValueError(
            f"samples have shape {tuple(samples.shape)} and type {samples.dtype}: pass "
            "floating-point activations of shape (samples, channels)"
        )
    if labels.shape != samples.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and type {labels.dtype}: pass one integer "
            f"class for each of the {samples.shape[0]} samples"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: pass the number of classes, at least 1")
    if labels.numel() and bool(((labels < 0) | (labels >= num_classes)).any()):
        raise ValueError(
            f"labels are in {int(labels.min())}..{int(labels.max())}, but num_classes="
            f"{num_classes} allows 0..{num_classes - 1}"
        )


def _padded(moments: ClassMoments, num_classes: int, device: torch.device) -> ClassMoments:
    missing = (0, num_classes - moments.num_classes)
    return ClassMoments(
        *(
            torch.nn.functional.pad(value.to(device), missing)
            for value in (moments.count, moments.mean, moments.variance, moments.mean_abs)
        )
    )
