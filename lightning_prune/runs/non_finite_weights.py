"""The error that ends a run whose weights are no numbers any more."""


class NonFiniteWeightsError(FloatingPointError):
    """A weight or a norm statistic is NaN or infinite: training cannot recover from it.

    The message names the first such tensor and the step at which the loss was not finite first.
    Checkpoints are left as they are.
    """
