import numpy as np
import pytest

from lightning_prune.neural.data.simulated_photographs import HEIGHT, WIDTH, photographs, structure


def test_photographs_are_grey_different_and_keep_their_number():
    few, many = photographs(4), photographs(18)
    assert many.shape == (18, HEIGHT, WIDTH)
    assert many.dtype == np.uint8
    np.testing.assert_array_equal(many[:4], few)
    assert len({photo.tobytes() for photo in many}) == 18
    np.testing.assert_allclose(many.mean(axis=(1, 2)), 127, atol=3)
    # clipping at black and white takes a little contrast
    deviations = many.std(axis=(1, 2))
    assert deviations.min() > 42
    assert deviations.max() < 48.5
    assert not many.flags.writeable
    assert photographs(18) is many


def test_structure_is_the_deviation_around_a_pixel():
    photo = photographs(1)[0]
    found = structure(photo, 5)
    for row, column in [(2, 2), (100, 31), (237, 317)]:
        around = photo[row - 2 : row + 3, column - 2 : column + 3].astype(float)
        assert found[row, column] == pytest.approx(around.std(), abs=1e-6)


@pytest.mark.parametrize("count", [0, 65])
def test_count(count: int):
    with pytest.raises(ValueError, match="pass 1-64"):
        photographs(count)
