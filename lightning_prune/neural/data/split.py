"""Divide the trials of a session into training, validation and test."""

import numpy as np

from lightning_prune.errors import DataError
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.data.windows import window_ends

Split = dict[str, np.ndarray]


def split_windows(
    session: NeuralSession,
    frames: int,
    val_fraction: float,
    test_fraction: float,
    seed: int | tuple[int, ...],
) -> Split:
    """Divide the windows of a session so that no trial is in two parts.

    Trials with repeated stimuli all go to the test part; of the others the fractions are drawn,
    at least one trial each. Trials without a window count for nothing.

    Args:
        session: The recording.
        frames: Length of a window.
        val_fraction: Fraction of the trials that are not repeated, between 0 and 1.
        test_fraction: The same, for the test part.
        seed: Of the drawing.

    Returns:
        for "train", "val" and "test" the last frame of each window, int64, rising.

    Raises:
        DataError: fewer than three trials can be divided.
    """
    ends = window_ends(session, frames)
    trial = session.trial[ends]
    again = np.zeros(len(session), bool) if session.repeat is None else session.repeat >= 0
    repeated = np.unique(session.trial[again])
    single = np.setdiff1d(trial, repeated)
    if len(single) < 3:
        raise DataError(
            f"{session.name}: {len(single)} trials that are not repeated hold a window of {frames} "
            f"frames (of {len(np.unique(session.trial))} trials, {len(repeated)} repeated); "
            "wanted: at least 3, one each to train, validate and test"
        )
    order = np.random.default_rng(seed).permutation(single)
    val = min(max(1, round(val_fraction * len(order))), len(order) - 2)
    test = min(max(1, round(test_fraction * len(order))), len(order) - val - 1)
    parts = {
        "val": order[:val],
        "test": np.concatenate([order[val : val + test], repeated]),
        "train": order[val + test :],
    }
    return {name: ends[np.isin(trial, chosen)] for name, chosen in parts.items()}
