import numpy as np

from tests.neural.data.recordings import session


def test_some_of_the_cells() -> None:
    whole = session(cells=4)
    for kept in (np.array([0, 3]), np.array([True, False, False, True])):
        part = whole.with_cells(kept)
        assert (part.cells, len(part)) == (2, len(whole))
        for name in ("spikes", "valid", "rate"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, [0, 3]])
        assert part.stimulus is whole.stimulus
    assert session(rate=None).with_cells(np.array([1])).rate is None


def test_arrays_in_memory() -> None:
    whole = session()
    found = list(whole.arrays())
    expected = [whole.stimulus, whole.spikes, whole.behavior, whole.valid, whole.trial]
    expected += [whole.labels["eye"], whole.rate, whole.repeat]
    assert [id(each) for each in found] == [id(each) for each in expected]
