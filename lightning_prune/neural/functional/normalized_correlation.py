"""How well a prediction follows the part of a response that the stimulus explains."""

import torch
from torch import Tensor


def normalized_correlation(responses: Tensor, prediction: Tensor) -> Tensor:
    r"""Return the normalised correlation coefficient CCnorm.

    .. math::
        CC_{norm} = \frac{\mathrm{Cov}(\bar R, P)}{\sqrt{\mathrm{Var}(P) \; SP}}, \quad
        SP = \frac{\mathrm{Var}(\sum_n R_n) - \sum_n \mathrm{Var}(R_n)}{M (M - 1)}

    with R_n the response to repeat n of M, R-bar their mean, P the prediction, all variances over
    time. SP is the signal power, the variance of the response that every repeat shares. 1 is a
    perfect prediction; noise can carry the estimate above 1.

    Args:
        responses: (M, T) or (M, T, N) responses to the same stimulus, M at least 2, T at least 2.
        prediction: (T,) or (T, N).

    Returns:
        () or (N,) float64; NaN where the signal power is not positive (the cell does not follow
        the stimulus) or the prediction is constant.

    Raises:
        ValueError: the shapes do not fit.

    Source: O. Schoppe et al., 2016, Measuring the Performance of Neural Models, Frontiers in
    Computational Neuroscience 10:10, DOI 10.3389/fncom.2016.00010.

    >>> responses = torch.tensor([[0.0, 2.0, 1.0], [1.0, 2.0, 0.0]])
    >>> round(float(normalized_correlation(responses, torch.tensor([0.5, 2.0, 0.5]))), 4)
    1.2247
    """
    if responses.ndim not in (2, 3) or responses.shape[1:] != prediction.shape:
        raise ValueError(
            f"responses of shape {tuple(responses.shape)} and a prediction of shape "
            f"{tuple(prediction.shape)}: pass (repeats, T) and (T,), or with cells last"
        )
    repeats, samples = responses.shape[:2]
    if repeats < 2 or samples < 2:
        raise ValueError(
            f"{repeats} repeats of {samples} samples: the signal power needs at least 2 of each"
        )
    responses, prediction = responses.double(), prediction.double()
    total = responses.sum(0).var(0, correction=1)
    power = (total - responses.var(1, correction=1).sum(0)) / (repeats * (repeats - 1))
    mean = responses.mean(0)
    centred = prediction - prediction.mean(0)
    covariance = ((mean - mean.mean(0)) * centred).sum(0) / (samples - 1)
    scale = prediction.var(0, correction=1) * power
    defined = (power > 0) & (scale > 0)
    return torch.where(defined, covariance / torch.where(defined, scale, 1.0).sqrt(), torch.nan)
