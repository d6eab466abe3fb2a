"""The range of movies: what grey values become before the network sees them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightning_prune.neural.data.session import NeuralSession

_MOST_AS_IT_IS = 10.0  # a movie in units of its standard deviation stays below


class MovieScale(NamedTuple):
    """How a value x of a movie reaches the network: (x - offset) / divisor."""

    offset: float
    divisor: float


GREY = MovieScale(127.0, 255.0)
"""Of grey values 0 to 255."""
FRACTIONS = MovieScale(127.0 / 255.0, 1.0)
"""Of the same divided by 255."""
AS_IT_IS = MovieScale(0.0, 1.0)


def movie_dtype(session: NeuralSession) -> np.dtype:
    """Return the type that windows of a movie are cut out in: uint8, or float32 of this machine."""
    grey = session.stimulus.dtype == np.uint8
    return np.dtype(np.uint8 if grey else np.float32)


def movie_scale(sessions: Sequence[NeuralSession]) -> tuple[MovieScale, str | None]:
    """Return how to scale the movies of sessions that share a network.

    uint8 movies are grey values. Of floating-point movies the range of all sessions decides: 0 to
    1 and 0 to 255 are grey values too, so that a movie reaches the network alike in whichever type
    it was stored; others are taken as they are.

    Args:
        sessions: Checked sessions; a range that is not known counts for nothing.

    Returns:
        the scale, and what is to be said about it, or None.
    """
    if movie_dtype(sessions[0]) == np.uint8:
        return GREY, None
    ranges = [session.movie_range for session in sessions if session.movie_range is not None]
    if not ranges:
        return AS_IT_IS, None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    found = f"`stimulus` is floating point, range {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return FRACTIONS, f"{found}: taken as grey values over 255, it is shifted by -127 / 255."
    if low >= 0 and _MOST_AS_IT_IS < high <= 255:
        return GREY, f"{found}: taken as grey values, it is scaled by (x - 127) / 255."
    if max(-low, high) > _MOST_AS_IT_IS:
        return AS_IT_IS, (
            f"{found}: it is taken as it is, though networks learn from values between about -1 "
            "and 1: scale it, or store grey values 0 to 255 as uint8."
        )
    if low >= 0:
        return AS_IT_IS, f"{found}: it is taken as it is."
    return AS_IT_IS, None
