from dataclasses import replace

import numpy as np
import pytest

from lightning_prune.neural.data.movie_range import (
    AS_IT_IS,
    FRACTIONS,
    GREY,
    movie_dtype,
    movie_scale,
)
from tests.neural.data.recordings import session

FLOATS = session(stimulus=np.zeros((55, 3, 2), ">f8"))


def test_types_of_windows() -> None:
    assert movie_dtype(session()) == np.uint8
    assert movie_dtype(FLOATS) == np.dtype(np.float32)
    assert movie_dtype(FLOATS).isnative


@pytest.mark.parametrize(
    ("ranges", "scale", "said"),
    [
        ([(0.0, 1.0)], FRACTIONS, "range 0 to 1: taken as grey values over 255"),
        ([(0.0, 0.9), (0.1, 254.0)], GREY, "range 0 to 254: taken as grey values, it is scaled"),
        ([(-2.5, 3.0), (0.0, 1.0)], AS_IT_IS, None),
        ([(0.0, 4.5)], AS_IT_IS, "range 0 to 4.5: it is taken as it is"),
        ([(0.0, 65535.0)], AS_IT_IS, "range 0 to 65535: it is taken as it is, though networks"),
        ([(-127.0, 128.0)], AS_IT_IS, "scale it, or store grey values 0 to 255 as uint8"),
        ([None], AS_IT_IS, None),
    ],
)
def test_the_range_of_all_sessions_decides(ranges, scale, said) -> None:
    found, told = movie_scale([replace(FLOATS, movie_range=each) for each in ranges])
    assert found == scale
    assert told is None if said is None else said in told


def test_grey_values_are_known_by_their_type() -> None:
    assert movie_scale([session()]) == (GREY, None)


def test_scales_agree() -> None:
    grey = np.arange(256)
    shifted = (grey / 255 - FRACTIONS.offset) / FRACTIONS.divisor
    np.testing.assert_allclose(shifted, (grey - GREY.offset) / GREY.divisor, atol=1e-15)
