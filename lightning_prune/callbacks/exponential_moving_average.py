"""An exponential moving average of the weights whose decay ramps up."""

import math
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from lightning_prune.annotations import Above, Between
from lightning_prune.callbacks.trainer.averages import forget_updates
from lightning_prune.validation import validated


class ExponentialMovingAverage(WeightAveraging):
    r"""Average the weights and buffers, slowly at the end and quickly at the start.

    .. math:: \bar w \leftarrow d_n \bar w + (1 - d_n) w, \qquad d_n = d (1 - e^{-n / r})

    with n the number of updates so far: early averages follow the model closely instead of
    holding on to its random start. Validation and the saved ``state_dict`` use the average.

    Args:
        decay: D in [0, 1), the decay that is approached.
        ramp: R > 0, updates after which about 63 % of it are reached.

    Raises:
        ValueError: decay outside [0, 1) or ramp not positive.
    """

    @validated
    def __init__(
        self,
        decay: Annotated[float, Between(0, 1, "for example 0.9999", "[)")] = 0.9999,
        ramp: Annotated[float, Above(0, "the number of updates over which it rises")] = 2000.0,
    ) -> None:
        self.decay = decay
        self.ramp = ramp
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin a new average, its steps counted from the start, where the callback is reused."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            forget_updates(self)

    def decay_after(self, updates: int) -> float:
        """Return d_n after n updates.

        >>> round(ExponentialMovingAverage(0.9999, 2000.0).decay_after(2000), 4)
        0.6321
        """
        return self.decay * (1 - math.exp(-updates / self.ramp))

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], updates: Any) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
            return
        # In true half precision the model is converted after the copy was made.
        current = [now.to(mean.dtype) for mean, now in zip(averaged, current, strict=True)]
        # The counter lives on the device: reading it as a number once per step is the one
        # synchronisation that Lightning's own callback makes too.
        # Under half or double precision the copy is older than the model's conversion.
        same = [value.to(averaged[0].dtype) for value in current]
        torch._foreach_lerp_(averaged, same, 1 - self.decay_after(int(updates)))
