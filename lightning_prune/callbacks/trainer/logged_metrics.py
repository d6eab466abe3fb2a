"""What the report needs of Lightning's private parts, and nothing else."""

import lightning.pytorch as pl
import torch


def evaluated_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the finite metrics of the validation that ends, whatever their names begin with.

    ``callback_metrics`` holds those of the training steps too, and does not say which are which.
    """
    results = trainer._results
    found = {} if results is None else results.metrics(on_step=False)["callback"]
    return {name: float(value) for name, value in found.items() if bool(torch.isfinite(value))}
