"""Arguments that several constructors take, each with its range."""

from collections.abc import Sequence
from typing import Annotated

from lightning_prune.annotations import Above, AtLeast, Between, Such, multiple_of

Count = Annotated[int, AtLeast(1)]
OptionalCount = Annotated[int | None, AtLeast(1)]
NonNegative = Annotated[int, AtLeast(0)]
Strength = Annotated[float, AtLeast(0, "a strength")]
Epoch = Annotated[int, AtLeast(0, "counted from 0")]
Threshold = Annotated[float, Between(0, 1, "a probability", "[)")]
Overlap = Annotated[float, Between(0, 1, "an overlap")]

# Of the learning rate and its schedule.
LearningRate = Annotated[float, Above(0, "a learning rate")]
FinalRate = Annotated[float, Between(0, 1, "a fraction of lr")]

# Of images and recordings.
ImageSize = Annotated[int, multiple_of(32, 32, 16384)]
"""Side of square images in pixels; 32 is the largest stride of the detection network."""
Workers = Annotated[int, Between(0, 512, "worker processes")]
TrialFraction = Annotated[float, Between(0, 1, "a fraction of the trials", "()")]

# Of channels that count their use.
TopK = Annotated[float | None, Between(0, 1, "the fraction of places that stay", "(]")]
UsageThreshold = Annotated[float, AtLeast(0, "a mean magnitude")]

# Of pruning.
HoldEpochs = Annotated[int, AtLeast(0, "epochs of training with all masks")]
TrainingImages = Annotated[int, AtLeast(0, "a number of training images; 0: never")]
MacWeight = Annotated[float, Between(0, 1, "the weight of the importance")]
MacRoot = Annotated[float, Above(0, "the root of the MACs' ratio")]
NormThreshold = Annotated[
    float, Between(0, 1, "a fraction of the group's largest norm, for example 0.1", "()")
]
MacTarget = Annotated[
    float | None,
    Between(0, 1, "the fraction of the dense model's MACs that remains, for example 0.5", "()"),
]
LatencyTarget = Annotated[
    float | None,
    Above(0, "the fraction of the dense network's time that remains, below 1, or milliseconds"),
]
PruningRatio = Annotated[float, Between(0, 1, "the fraction that the last step removes", "(]")]


def _is_keep_range(bounds: Sequence[float]) -> bool:
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= 1


KeepRange = Annotated[
    tuple[float, float] | None,
    Such(
        _is_keep_range,
        "[smallest, largest] fractions of the channels that stay, 0 < smallest <= largest <= 1, "
        "for example [0.25, 0.5]",
    ),
]
