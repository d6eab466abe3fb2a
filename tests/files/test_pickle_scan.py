import pickle
import pickletools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.files.pickle_scan import TORCH_OPCODES, scan

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)


@given(VALUES, st.integers(0, 5))
def test_it_counts_the_opcodes_that_pickletools_finds(value, protocol):
    data = pickle.dumps(value, protocol)
    count = sum(1 for _ in pickletools.genops(data))
    scan(data, count)
    with pytest.raises(ValueError, match="more than"):
        scan(data, count - 1)


@given(VALUES, st.data())
def test_a_pickle_cut_anywhere_is_torn(value, draw):
    data = pickle.dumps(value, 2)
    length = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(ValueError, match="ends within"):
        scan(data[:length], 10**6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02\xff.", "no pickle: 0xff at byte 2"),
        (b"\x82\x01.", "extension registries"),
        (b"I" + b"1" * 5000 + b"\n.", "a number of 5001 characters"),
        (b"\x8b" + (5000).to_bytes(4, "little") + bytes(5000) + b".", "a number of 5000 bytes"),
        (b"X\xff\xff\xff\x7fabc.", "ends within"),
        (b"cos\nsystem", "ends within"),
    ],
)
def test_what_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        scan(data, 10**6)


def test_what_torch_does_not_read_is_refused_where_it_counts():
    data = pickle.dumps({"a": [1, 2.5, (1,)]}, 2)
    scan(data, 100, TORCH_OPCODES)
    with pytest.raises(ValueError, match=r"FRAME at byte 2, .* pickle_protocol other than 2"):
        scan(pickle.dumps({"a": [1, 2.5, (1,)]}, 4), 100, TORCH_OPCODES)
