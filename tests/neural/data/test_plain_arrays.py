from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lightning_prune.errors import DataError
from lightning_prune.neural.data.plain_arrays import plain_session
from tests.neural.data.recordings import session

FRAMES = 55


def test_plain_arrays_stay_the_same_objects() -> None:
    whole = session()
    found = plain_session(whole)
    for name in ("stimulus", "spikes", "behavior", "valid", "trial", "rate", "repeat"):
        assert getattr(found, name) is getattr(whole, name)
    assert found.labels["eye"] is whole.labels["eye"]


def test_any_byte_order_is_converted() -> None:
    whole = session()
    swapped = {
        name: (array := np.asarray(getattr(whole, name))).astype(array.dtype.newbyteorder("S"))
        for name in ("spikes", "behavior", "trial", "rate", "repeat")
    }
    swapped["spikes"] = np.asarray(whole.spikes).astype(">i2")
    label = whole.labels["eye"].astype(">i4")
    found = plain_session(replace(whole, **swapped, labels={"eye": label}))
    for name in swapped:
        assert getattr(found, name).dtype.isnative
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.labels["eye"].dtype == np.dtype(np.int32)


def test_what_other_programs_write_for_bool_and_vectors() -> None:
    whole = session(spikes=np.eye(FRAMES, 3, dtype=bool), valid=np.ones(FRAMES, bool))
    change: dict[str, Any] = {
        "valid": np.ones((1, FRAMES), np.uint8),
        "trial": whole.trial[:, None],
        "repeat": whole.repeat[None],  # type: ignore[index]
        "labels": {"eye": whole.labels["eye"][None]},
    }
    found = plain_session(replace(whole, **change))
    assert found.spikes.dtype == np.uint8
    assert found.valid.dtype == bool
    for vector in (found.valid, found.trial, found.repeat, found.labels["eye"]):
        assert vector is not None
        assert vector.shape == (FRAMES,)


def test_a_mask_of_one_cell_keeps_its_shape() -> None:
    whole = session(cells=1, valid=np.ones((FRAMES, 1), bool))
    assert plain_session(whole).valid.shape == (FRAMES, 1)


@pytest.mark.parametrize("name", ["stimulus", "spikes", "behavior", "trial"])
def test_masked_arrays_are_refused(name: str) -> None:
    whole = session()
    masked = np.ma.masked_array(np.asarray(getattr(whole, name)), mask=False)
    with pytest.raises(DataError, match=f"`{name}` is a masked array; wanted: .* valid False"):
        plain_session(replace(whole, **{name: masked}))
