"""The error that ends a run whose weights are NaN or infinite."""


class NonFiniteWeightsError(FloatingPointError):
    """A weight or a norm statistic is NaN or infinite: training cannot recover from it.

    The message names the first such tensor and the first step of a NaN or infinite loss.
    Checkpoints are left as they are.
    """
