"""How far the pruning of a model has come."""

from enum import StrEnum


class Phase(StrEnum):
    """A phase of pruning; they follow one another in this order."""

    DENSE = "dense"
    """Nothing is masked yet."""
    MASKING = "masking"
    """Some steps are made, further ones are to come."""
    HOLDING = "holding"
    """All that will be masked is, and the model trains so until the cut."""
    CUT = "cut"
    """The channels are gone."""
