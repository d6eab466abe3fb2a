"""How a fit ends before its first batch."""

import lightning.pytorch as pl


def stop_before_training(trainer: pl.Trainer) -> None:
    """End a fit from ``on_train_start``, before its first batch."""
    # should_stop alone would train min_epochs first.
    trainer.fit_loop.max_batches = 0
    trainer.should_stop = True
