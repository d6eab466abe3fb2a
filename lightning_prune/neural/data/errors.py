"""The error of one array of a recording."""

from lightning_prune.errors import DataError


def wrong(place: str, array: str, found: str, wanted: str) -> DataError:
    """Make the error of one array.

    >>> print(wrong("a.npz", "trial", "has shape (3, 1)", "(T,) integers"))
    a.npz: the array `trial` has shape (3, 1); wanted: (T,) integers
    """
    return DataError(f"{place}: the array `{array}` {found}; wanted: {wanted}")
