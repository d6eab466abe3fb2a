"""The error of a choice among channels whose importance is not a number."""

from torch import Tensor


class NonFiniteImportanceError(ValueError):
    """Something that channels or slices are chosen by is NaN or infinite, or not known at all.

    The choice would be arbitrary, so that none is made. The message says where, and what was seen.
    """


def check_finite(values: Tensor, what: str, name: str, parts: str = "channels") -> None:
    """Refuse to choose by values that are not finite.

    Args:
        values: What is chosen by, one row per channel or slice.
        what: What it is and whose, for the message.
        name: The group or the layer.
        parts: What one row stands for.

    Raises:
        NonFiniteImportanceError: a value is NaN or infinite.

    >>> import torch
    >>> check_finite(torch.tensor([1.0, torch.nan]), "Taylor's importance", "stem")
    Traceback (most recent call last):
    ...
    lightning_prune...NonFiniteImportanceError: Taylor's importance is NaN or infinite for 1 of \
the 2 channels of 'stem'
    """
    finite = values.detach().isfinite()
    if bool(finite.all()):
        return
    odd = int((~finite.flatten(1).all(1)).sum()) if finite.ndim > 1 else int((~finite).sum())
    raise NonFiniteImportanceError(
        f"{what} is NaN or infinite for {odd} of the {len(values)} {parts} of {name!r}"
    )
