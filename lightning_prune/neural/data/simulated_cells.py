"""The default recordings: simulated cells that watch real photographs. No download."""

from collections.abc import Sequence
from typing import Annotated

from lightning_prune.annotations import Between, Such
from lightning_prune.arguments import Count, NonNegative, TrialFraction, Workers
from lightning_prune.neural.data.data_module import NeuralDataModule
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.data.simulated_photographs import MOST
from lightning_prune.neural.data.simulated_recording import RecordingOptions, simulate_recording
from lightning_prune.validation import validated


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
        ValueError: an argument of the wrong type or out of range.
    """

    @validated
    def __init__(
        self,
        cells: Annotated[
            Sequence[int],
            Between(1, 10_000),
            Such(len, "the number of cells of each session, up to 10000"),
        ] = (24, 16),
        pixels: Annotated[int, Between(15, 127)] = 51,
        trials: Annotated[int, Between(3, 100_000)] = 80,
        repeated_trials: Annotated[int, Between(0, 1000)] = 2,
        repeats: Annotated[int, Between(2, 1000)] = 8,
        trial_seconds: Annotated[float, Between(0.5, 60, "seconds")] = 2.5,
        photos: Annotated[int, Between(1, MOST)] = 16,
        frames: Count = 25,
        batch_size: Count = 64,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        val_fraction: TrialFraction = 0.1,
        test_fraction: TrialFraction = 0.15,
        stride: Count = 1,
        val_stride: Count = 1,
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
