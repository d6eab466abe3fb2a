"""Recordings in files: one .npz or HDF5 file a session."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from lightning_prune.arguments import Count, NonNegative, TrialFraction, Workers
from lightning_prune.errors import DataError
from lightning_prune.neural.data.data_module import NeuralDataModule
from lightning_prune.neural.data.recording_file import read_session
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.validation import validated


class NeuralSessionsDataModule(NeuralDataModule):
    """Recorded sessions from files; see `read_session` for what a file holds.

    Args:
        files: Paths or patterns (`recordings/*.npz`); a pattern's files come sorted by name.
        frames: Length of a window.
        batch_size: Windows per batch and process.
        num_workers: Worker processes per loader.
        seed: Of the split and the order.
        val_fraction: Fraction of the trials to validate on.
        test_fraction: Fraction of the trials to test on besides the repeated ones.
        stride: Take every n-th training window only, others in each of n epochs.
        val_stride: Take every n-th validation window only.
        labels: Label set that windows are labelled with, or None: the first.
        drop_silent: Leave out cells without a spike in training instead of refusing them.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range.
    """

    @validated
    def __init__(
        self,
        files: str | Sequence[str],
        frames: Count = 25,
        batch_size: Count = 64,
        num_workers: Workers = 0,
        seed: NonNegative = 0,
        val_fraction: TrialFraction = 0.1,
        test_fraction: TrialFraction = 0.15,
        stride: Count = 1,
        val_stride: Count = 1,
        labels: str | None = None,
        drop_silent: bool = False,
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
            drop_silent,
        )
        self.files = [files] if isinstance(files, str) else [str(each) for each in files]

    def load_sessions(self) -> list[NeuralSession]:
        """Read and check every file.

        Raises:
            DataError: a pattern matches nothing, or a file cannot be trained on.
        """
        paths: list[Path] = []
        for pattern in self.files:
            found = [pattern] if Path(pattern).exists() else sorted(glob(pattern))
            if not found:
                raise DataError(f"files={pattern}: no such file, and no file matches it")
            paths += map(Path, found)
        doubled = {str(path) for path in paths if paths.count(path) > 1}
        if doubled:
            raise DataError(f"given twice: {', '.join(sorted(doubled))}; pass each session once")
        return [read_session(path) for path in paths]
