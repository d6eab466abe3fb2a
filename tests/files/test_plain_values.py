from collections import Counter, OrderedDict

import pytest
import torch

from lightning_prune.files import plain_values
from lightning_prune.files.plain_values import Keys

# Constants of the hash of a tuple (xxHash) in CPython since 3.8.
ONE, TWO, FIVE = 11400714785074694791, 14029467366897019727, 2870177450012600261
WORD = 2**64


def colliding_tuples(count: int) -> list[tuple[int, int]]:
    """Pairs of small numbers of one hash, found by running the hash backwards."""
    found, inverse, first = [], pow(TWO, -1, WORD), 0
    while len(found) < count:
        first += 1
        lane = (FIVE + first * TWO) % WORD
        lane = ((lane << 31) | (lane >> 33)) * ONE % WORD
        second = (12345 - lane) * inverse % WORD
        if second < 2**61 - 1:
            found.append((first, second))
    return found


def test_keys_that_were_chosen_to_collide_are_refused():
    tuples = colliding_tuples(150)
    assert len({hash(key) for key in tuples}) == 1
    keys = Keys()
    for key in tuples[:100]:
        keys.check(key)
    with pytest.raises(ValueError, match="chosen to have the same hash"):
        keys.check(tuples[100])


def test_plain_keys_pass():
    keys = Keys()
    for key in (
        "a",
        "\ud800",
        3,
        -(2**63),
        True,
        None,
        1.5,
        b"x",
        torch.float16,
        torch.device("cpu"),
    ):
        keys.check(key)
    for key in ((1, ("a", (2.5, None))), (), torch.Size([1, 2]), 2**200, 1j):
        keys.check(key)


@pytest.mark.parametrize(
    "key",
    [[], {}, set(), frozenset(), torch.ones(1), (1,) * 99, ((1,) * 40, (1,) * 40), 2**5000, ([],)],
    ids=str,
)
def test_other_keys_are_refused_before_they_are_hashed(key):
    with pytest.raises(ValueError, match="as a key"):
        Keys().check(key)


def test_values_are_made_as_by_their_classes():
    keys = Keys()
    assert keys.make_ordered_dict([("a", 1), ["b", 2]]) == OrderedDict(a=1, b=2)
    assert keys.make_counter({"a": 3}) == Counter("aaa")
    assert keys.make_set([1, "x"]) == {1, "x"}
    assert keys.make_frozenset(()) == frozenset()
    assert plain_values.make_size((2, 3)) == torch.Size([2, 3])
    assert plain_values.make_complex(1, 2.5) == 1 + 2.5j
    assert plain_values.make_bytes("\xff", "latin1") == b"\xff"
    assert plain_values.make_bytearray("\xff", "latin-1") == bytearray(b"\xff")
    assert plain_values.make_bytearray(b"x") == plain_values.make_bytearray("x") == bytearray(b"x")
    assert plain_values.make_device("cuda", 3) == torch.device("cuda:3")
    assert plain_values.make_layout("torch.sparse_coo") is torch.sparse_coo


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (Keys().make_ordered_dict, (torch.ones(2, 2),)), (Keys().make_ordered_dict, ([(1, 2, 3)],)),
        (Keys().make_ordered_dict, ([([], 2)],)), (Keys().make_counter, (7,)),
        (Keys().make_set, (torch.ones(3),)), (Keys().make_set, ([[1]],)),
        (plain_values.make_size, (torch.ones(3),)), (plain_values.make_size, ((-1,),)),
        (plain_values.make_size, ((1,) * 99,)), (plain_values.make_size, ((True,),)),
        (plain_values.make_complex, ("1",)), (plain_values.make_complex, (2**5000,)),
        (plain_values.make_bytes, ("x", "idna")), (plain_values.make_bytes, (b"x",)),
        (plain_values.make_bytes, ("\u20ac",)), (plain_values.make_bytearray, (10**12,)),
        (plain_values.make_bytearray, (torch.ones(1),)), (plain_values.make_device, ("../x",)),
        (plain_values.make_device, ("cuda", -1)), (plain_values.make_layout, ("load",)),
        (plain_values.make_layout, (3,)),
    ],
)  # fmt: skip
def test_other_arguments_are_refused(make, arguments):
    with pytest.raises(ValueError, match=r"\w"):
        make(*arguments)
