"""What the DataModules of neural recordings share: splits, windows, loaders, the upper bound."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prune.arguments import Count, NonNegative, TrialFraction, Workers
from lightning_prune.data.checks import SHOWN
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.resumable_data import ResumableDataModule
from lightning_prune.errors import DataError
from lightning_prune.neural.data.collate import collate_windows
from lightning_prune.neural.data.movie_range import MovieScale, movie_dtype, movie_scale
from lightning_prune.neural.data.session import NeuralSession
from lightning_prune.neural.data.split import Split, split_windows
from lightning_prune.neural.data.windows import NeuralBatch, NeuralWindows
from lightning_prune.neural.functional.bits_per_spike import bits_per_spike, mean_bits_per_spike
from lightning_prune.validation import validated


class NeuralDataModule(ResumableDataModule):
    """Base of the DataModules of neural recordings. Subclasses say where the sessions come from.

    Batches are `(inputs, targets)` as `NeuralWindows` describes them; windows of all sessions are
    mixed. Trials are divided into training, validation and test, repeated ones are all for the
    test. The training order depends on (seed, epoch) alone and continues in the middle of an
    epoch after a resume; ranks share the windows by themselves.

    Everything that a model has to know is known before `setup`: `cells`, `frame_rate`,
    `behavior_dim`, `frame_shape`, `label_names`. The sessions are loaded when first asked for.

    Args:
        frames: Length of a window.
        batch_size: Windows per batch and process.
        num_workers: Worker processes per loader; 0 loads in the main process.
        seed: Of the split and the order.
        val_fraction: Fraction of the trials to validate on, between 0 and 1.
        test_fraction: Fraction of the trials to test on besides the repeated ones.
        stride: Take every n-th training window only, in each epoch those that follow on the ones
            of the epoch before: n epochs see them all.
        val_stride: Take every n-th validation window only.
        labels: Label set that windows are labelled with, or None: the first, if there is one.
        drop_silent: Leave out cells without a spike in training instead of refusing them.

    Raises:
        ValueError: an argument of the wrong type or out of range.
    """

    @validated
    def __init__(
        self,
        frames: Count,
        batch_size: Count,
        num_workers: Workers,
        seed: NonNegative,
        val_fraction: TrialFraction,
        test_fraction: TrialFraction,
        stride: Count = 1,
        val_stride: Count = 1,
        labels: str | None = None,
        drop_silent: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to "
                "train on: pass fractions whose sum is below 1"
            )
        self.frames = frames
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.strides = {"train": stride, "val": val_stride, "test": 1}
        self.labels = labels
        self.drop_silent = drop_silent
        self._datasets: dict[str, NeuralWindows] = {}

    @abstractmethod
    def load_sessions(self) -> list[NeuralSession]:
        """Load and check each session by itself.

        Raises:
            DataError: the data cannot be trained on.
        """

    @cached_property
    def _loaded(self) -> tuple[list[NeuralSession], list[Split]]:
        sessions = self.load_sessions()
        _check_agreement(sessions)
        splits = [
            split_windows(
                each, self.frames, self.val_fraction, self.test_fraction, (self.seed, index)
            )
            for index, each in enumerate(sessions)
        ]
        spiking = [
            _spiking(each, split["train"]) for each, split in zip(sessions, splits, strict=True)
        ]
        if not all(each.all() for each in spiking):
            sessions = self._without_silent(sessions, spiking)
        return sessions, splits

    @cached_property
    def _movie_scale(self) -> MovieScale:
        scale, said = movie_scale(self.sessions)
        if said is not None:
            rank_zero_warn(said)
        return scale

    @property
    def sessions(self) -> list[NeuralSession]:
        """Return the recordings, without the silent cells that were dropped."""
        return self._loaded[0]

    @property
    def cells(self) -> list[int]:
        """Return the number of cells of each session."""
        return [session.cells for session in self.sessions]

    @property
    def frame_rate(self) -> float:
        """Return the frames per second, Hz."""
        return self.sessions[0].frame_rate

    @property
    def behavior_dim(self) -> int:
        """Return the number of columns of the behaviour."""
        return int(self.sessions[0].behavior.shape[1])

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Return the height and width of the movie, in pixels."""
        _, height, width = self.sessions[0].stimulus.shape
        return height, width

    @property
    def label_sets(self) -> list[str]:
        """Label sets that all sessions have, with the same classes."""
        return [name for name in self.sessions[0].labels if self._classes(name) is not None]

    @property
    def label_names(self) -> list[str]:
        """Return the names of the classes that windows are labelled with; empty without labels."""
        name = self._label_set()
        return [] if name is None else self._classes(name) or []

    @property
    def mean_counts(self) -> list[Tensor]:
        """Return each cell's mean count per frame in training, (N,) float32 for each session."""
        result = []
        for session, split in zip(*self._loaded, strict=True):
            counts, samples = _training_counts(session, split["train"])
            result.append(torch.from_numpy(counts / samples.clip(1)).float())
        return result

    def setup(self, stage: str) -> None:
        """Load and check the sessions, once."""
        self.dataset("train" if stage == "fit" else "test")

    def train_dataloader(self) -> ResumableLoader:
        """Return the training windows in a random order that a checkpoint can restore."""
        return self.training_loader(self.dataset("train"), collate_windows)

    def val_dataloader(self) -> DataLoader[NeuralBatch]:
        """Return the validation windows, in order, each exactly once."""
        return self.evaluation_loader(self.dataset("val"), collate_windows, persistent=True)

    def test_dataloader(self) -> DataLoader[NeuralBatch]:
        """Return the test windows, in order, each exactly once."""
        return self.evaluation_loader(self.dataset("test"), collate_windows)

    def predict_dataloader(self) -> DataLoader[NeuralBatch]:
        """Return the windows of `test_dataloader`."""
        return self.test_dataloader()

    def collection_dataloader(self) -> DataLoader[NeuralBatch]:
        """Return the training windows in one fixed random order: a part of them has all kinds."""
        return self.evaluation_loader(self.dataset("train").shuffled(self.seed), collate_windows)

    def dataset(self, split: str) -> NeuralWindows:
        """Return the windows of a split ("train", "val" or "test"), session after session."""
        if split not in self._datasets:
            sessions, splits = self._loaded
            ends = [_turns(each[split], self.strides[split]) for each in splits]
            index = np.repeat(np.arange(len(ends)), [each.shape[1] for each in ends])
            turns = np.concatenate(ends, axis=1)
            self._datasets[split] = NeuralWindows(
                sessions, self.frames, index, turns[0], self._label_set(),
                turns if split == "train" and len(turns) > 1 else None, self._movie_scale,
            )  # fmt: skip
        return self._datasets[split]

    def attainable_per_cell(self, split: str = "test") -> list[Tensor] | None:
        """Return the bits per spike of the true rates: no model can expect more.

        Args:
            split: "train", "val" or "test".

        Returns:
            for each session (N,) float64 bits per spike, not clamped, NaN without spikes; None
            where a session has no true rates, as recorded cells have none.
        """
        windows, result = self.dataset(split), []
        for index, session in enumerate(self.sessions):
            if session.rate is None:
                return None
            rows = windows.end[windows.session == index]
            rate, spikes = (
                torch.from_numpy(each[rows].astype(np.float64))
                for each in (session.rate, session.spikes)
            )
            result.append(bits_per_spike(rate, spikes, torch.from_numpy(session.valid[rows])))
        return result

    def attainable_bits_per_spike(self, split: str = "test") -> float | None:
        """Return the mean over sessions of the mean over cells of what the true rates reach.

        Args:
            split: "train", "val" or "test".

        Returns:
            bits per spike; None where a session has no true rates.
        """
        found = self.attainable_per_cell(split)
        return None if found is None else float(mean_bits_per_spike(found)[0])

    def _label_set(self) -> str | None:
        known = self.label_sets
        if self.labels is None:
            return known[0] if known else None
        if self.labels not in known:
            raise DataError(
                f"labels={self.labels}: no such label set with the same classes in all sessions; "
                f"there are {', '.join(known) or 'none'}"
            )
        return self.labels

    def _classes(self, name: str) -> list[str] | None:
        """Return the class names of a label set; None where the sessions do not agree."""
        if any(name not in session.labels for session in self.sessions):
            return None
        names = [session.label_names[name] for session in self.sessions]
        longest = max(names, key=len)
        # a session may lack the last classes
        return longest if all(longest[: len(each)] == each for each in names) else None

    def _without_silent(
        self, sessions: list[NeuralSession], spiking: list[np.ndarray]
    ) -> list[NeuralSession]:
        places = [
            f"{session.name}: cell{'s' * (len(silent) > 1)} {_listed(silent)}"
            for session, each in zip(sessions, spiking, strict=True)
            if len(silent := np.flatnonzero(~each))
        ]
        message = "no spike in the training windows of " + "; ".join(places)
        if not self.drop_silent:
            raise DataError(
                f"{message}. There is nothing to learn about them: pass drop_silent=true to "
                "leave them out"
            )
        empty = [s.name for s, each in zip(sessions, spiking, strict=True) if not each.any()]
        if empty:
            raise DataError(f"{', '.join(empty)}: no cell has a spike in the training windows")
        rank_zero_warn(f"{message}. They are left out.")
        return [
            session.with_cells(np.flatnonzero(each))
            for session, each in zip(sessions, spiking, strict=True)
        ]


def _turns(ends: np.ndarray, stride: int) -> np.ndarray:
    """Divide windows into (stride, ceil(M / stride)), row r from the r-th on; the last fills up."""
    missing = -len(ends) % stride
    return np.pad(ends, (0, missing), mode="edge").reshape(-1, stride).T


def _training_counts(session: NeuralSession, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    valid = session.valid[ends]
    counts = np.where(valid, session.spikes[ends], 0).sum(axis=0, dtype=np.float64)
    return counts, valid.sum(axis=0)


def _spiking(session: NeuralSession, ends: np.ndarray) -> np.ndarray:
    spiking: np.ndarray = _training_counts(session, ends)[0] > 0
    return spiking


def _listed(indices: np.ndarray) -> str:
    more = f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return ", ".join(map(str, indices[:SHOWN])) + more


def _movie_types(first: NeuralSession, other: NeuralSession) -> tuple[np.dtype, np.dtype]:
    # floating-point types go together, whatever their size and byte order
    types = [session.stimulus.dtype for session in (first, other)]
    alike = movie_dtype(first) == movie_dtype(other)
    return (types[0], types[0]) if alike else (types[0], types[1])


def _check_agreement(sessions: list[NeuralSession]) -> None:
    """Refuse sessions that cannot share a core.

    Raises:
        DataError: names both sessions, and what differs.
    """
    if not sessions:
        raise DataError("no session: there is nothing to train on")
    first = sessions[0]
    for session in sessions[1:]:
        facts: list[tuple[str, Any, Any]] = [
            ("frame size of `stimulus`", first.stimulus.shape[1:], session.stimulus.shape[1:]),
            ("type of `stimulus`", *_movie_types(first, session)),
            ("columns of `behavior`", first.behavior.shape[1], session.behavior.shape[1]),
            ("`frame_rate`", first.frame_rate, session.frame_rate),
        ]
        for what, wanted, found in facts:
            if wanted != found:
                raise DataError(
                    f"{session.name}: {what} is {found}, but {wanted} in {first.name}; wanted: the "
                    "same in all sessions, which share a model"
                )
