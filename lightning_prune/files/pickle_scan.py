"""Walks over the opcodes of a pickle without running them."""

import pickletools

_SIZES = {ord(op.code): op.arg.n if op.arg else 0 for op in pickletools.opcodes}
_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_LINES = {ord("c"): 2, ord("i"): 2}  # module and name
_PREFIX = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}  # fmt: skip
_REGISTRIES = {0x82, 0x83, 0x84}
_LONG = {0x8A, 0x8B}
_TEXT_NUMBERS = {ord(code) for code in "ILFpg"}
_STOP = ord(".")

LONGEST_NUMBER = 4096
"""Bytes of a whole number, or characters of one that is written in decimal digits."""
TORCH_OPCODES = frozenset(b"c\x81Rbaeus(t\x85\x86\x87N\x88\x89)]}\x8fJKMGXUQhjqr\x8a\x80.")
"""What ``torch.load(weights_only=True)`` of 2.14 understands: protocol 2 with sets."""


def scan(data: bytes, budget: int, allowed: frozenset[int] | None = None) -> None:
    """Check that a pickle is whole, and that running it takes no more than so many steps.

    Args:
        data: The pickle.
        budget: Opcodes that it may have.
        allowed: Opcodes that may appear; None allows all but the registry of extensions.

    Raises:
        ValueError: it is not so.
    """
    place, length = 0, len(data)
    for _ in range(budget):
        if place >= length:
            raise ValueError("the pickle ends within")
        code = data[place]
        size = _SIZES.get(code)
        if size is None or (allowed is not None and code not in allowed):
            raise ValueError(_unknown(code, place))
        if code in _REGISTRIES:
            raise ValueError(f"{_NAMES[code]} at byte {place}: extension registries are not read")
        place += 1
        if size < 0:
            place = _end_of_argument(data, code, size, place)
        else:
            place += size
        if code == _STOP:
            return
    raise ValueError(f"more than {budget} steps, which no structure of a model needs")


def _end_of_argument(data: bytes, code: int, size: int, place: int) -> int:
    if size == pickletools.UP_TO_NEWLINE:
        start = place
        for _ in range(_LINES.get(code, 1)):
            place = data.find(b"\n", place) + 1
            if place == 0:
                raise ValueError("the pickle ends within")
        if code in _TEXT_NUMBERS and place - start > LONGEST_NUMBER:
            raise ValueError(f"a number of {place - start} characters")
        return place
    width = _PREFIX[size]
    count = int.from_bytes(data[place : place + width], "little", signed=False)
    if code in _LONG and count > LONGEST_NUMBER:
        raise ValueError(f"a number of {count} bytes")
    if place + width + count > len(data):
        raise ValueError("the pickle ends within")
    return place + width + count


def _unknown(code: int, place: int) -> str:
    if code in _NAMES:
        return (
            f"{_NAMES[code]} at byte {place}, which torch.load(weights_only=True) does not read "
            "(saved with a pickle_protocol other than 2: save it again without)"
        )
    return f"no pickle: {code:#04x} at byte {place}"
