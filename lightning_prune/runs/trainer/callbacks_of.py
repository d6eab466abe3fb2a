"""The callbacks of a Trainer."""

from typing import Any

import lightning.pytorch as pl


def callbacks_of(trainer: pl.Trainer) -> list[Any]:
    """Return the Trainer's callbacks, in their order."""
    return list(getattr(trainer, "callbacks"))  # noqa: B009 - absent from Lightning's stubs
