"""Arguments that several constructors take, each with its range."""

from collections.abc import Sequence
from typing import Annotated

from lightning_prune.annotations import Between, Such

MacTarget = Annotated[
    float | None,
    Between(0, 1, "the fraction of the dense model's MACs that remains, for example 0.5", "()"),
]
PruningRatio = Annotated[float, Between(0, 1, "the fraction of the channels that goes", "(]")]


def _is_keep_range(bounds: Sequence[float]) -> bool:
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= 1


KeepRange = Annotated[
    tuple[float, float],
    Such(
        _is_keep_range,
        "[smallest, largest] fractions of the channels that stay, 0 < smallest <= largest <= 1, "
        "for example [0.25, 0.5]",
    ),
]
