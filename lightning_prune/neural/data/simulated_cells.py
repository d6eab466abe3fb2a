"""The default recordings: simulated cells that watch real photographs. No download."""

from collections.abc import Sequence

from lightning_prune.data.resumable_data import check_at_least
from lightning_prune.neural.data.data_module import NeuralDataModule
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.data.simulated_photographs import MOST
from lightning_prune.neural.data.simulated_recording import RecordingOptions, simulate_recording


class SimulatedCellsDataModule(NeuralDataModule):
    """Sessions of simulated cells under simulated eye movements; see `simulate_recording`.

    Cells have simple, complex or centre-surround receptive fields, adapt, and follow the
    behaviour; spikes are Poisson. The true rates are known, so `attainable_bits_per_spike` is the
    upper bound. Label sets are "eye" (fixation, saccade) and "photo".

    Args:
        cells: Number of cells of each session.
        pixels: Side of the movie, in pixels; 15 to 127.
        trials: Trials of a session that are seen once, at least 3.
        repeated_trials: Trials that are seen several times; all for the test.
        repeats: How often each of them is seen.
        trial_seconds: Duration of a trial, 0.5 to 60 s.
        photos: Number of different photographs, 1 to 64.
        frames: Length of a window; rates depend on 25 frames.
        batch_size: Windows per batch and process.
        num_workers: Worker processes per loader; 0 is fastest, the movies are in memory.
        seed: Of the recording, the split and the order.
        val_fraction: Fraction of the trials to validate on.
        test_fraction: Fraction of the trials to test on besides the repeated ones.
        stride: Take every n-th training window only, others in each of n epochs.
        val_stride: Take every n-th validation window only.
        labels: "eye" or "photo", or None: "eye".

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        cells: Sequence[int] = (24, 16),
        pixels: int = 51,
        trials: int = 80,
        repeated_trials: int = 2,
        repeats: int = 8,
        trial_seconds: float = 2.5,
        photos: int = 16,
        frames: int = 25,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.15,
        stride: int = 1,
        val_stride: int = 1,
        labels: str | None = None,
    ) -> None:
        super().__init__(
            frames,
            batch_size,
            num_workers,
            seed,
            val_fraction,
            test_fraction,
            stride,
            val_stride,
            labels,
        )
        if isinstance(cells, str) or not isinstance(cells, Sequence) or not cells:
            raise TypeError(f"cells={cells!r}: pass the number of cells of each session")
        limits = [
            *(("cells", number, 1, 10_000) for number in cells),
            ("pixels", pixels, 15, 127),
            ("trials", trials, 3, 100_000),
            ("repeated_trials", repeated_trials, 0, 1000),
            ("repeats", repeats, 2, 1000),
            ("photos", photos, 1, MOST),
        ]
        for name, value, least, most in limits:
            check_at_least(name, value, least)
            if value > most:
                raise ValueError(f"{name}={value} is too large: pass at most {most}")
        if isinstance(trial_seconds, bool) or not isinstance(trial_seconds, int | float):
            raise TypeError(f"trial_seconds={trial_seconds!r} is not a number")
        if not 0.5 <= trial_seconds <= 60:
            raise ValueError(f"trial_seconds={trial_seconds} is outside [0.5, 60] s")
        self.recordings = [
            RecordingOptions(
                number,
                pixels,
                trials,
                repeated_trials,
                repeats,
                float(trial_seconds),
                photos,
                seed,
                index,
            )
            for index, number in enumerate(cells)
        ]

    def load_sessions(self) -> list[NeuralSession]:
        """Record the sessions, or take them from those this process has recorded."""
        return [simulate_recording(options).session for options in self.recordings]
