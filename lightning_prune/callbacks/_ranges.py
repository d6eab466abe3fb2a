"""Ranges that several stages take, each said once."""

from typing import Annotated

from lightning_prune.annotations import AtLeast, Between, Such

Count = Annotated[int, AtLeast(1)]
OptionalCount = Annotated[int | None, AtLeast(1)]
Epoch = Annotated[int, AtLeast(0, "counted from 0")]
HoldEpochs = Annotated[int, AtLeast(0, "epochs of training with all masks")]
Images = Annotated[int, AtLeast(0, "a number of training images; 0: never")]
MacTarget = Annotated[
    float | None, Between(0, 1, "the fraction of the dense model's MACs that remains", "()")
]
PruningRatio = Annotated[float, Between(0, 1, "the fraction that the last step removes", "(]")]
KeepRange = Annotated[
    tuple[float, float] | None,
    Such(
        lambda bounds: 0 < bounds[0] <= bounds[1] <= 1,
        "[smallest, largest] fractions of the channels that stay, 0 < smallest <= largest <= 1, "
        "for example [0.25, 0.5]",
    ),
]
Strength = Annotated[float, AtLeast(0, "the strength of a penalty")]


def check_end(end_epoch: int | None, least: int) -> None:
    """Refuse an end before the start; None passes.

    Raises:
        ValueError: the end is below its least value.
    """
    if end_epoch is not None and end_epoch < least:
        raise ValueError(f"end_epoch={end_epoch}: pass an integer of at least {least}")
