"""A target of milliseconds: the table it rests on, which a resumed run has from its checkpoint."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.files.file_error import printable
from lightning_prune.files.read_json import read_json
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.latency_model import LatencyModel
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.measured import MeasuredFraction, measured_table
from lightning_prune.latency.table import LatencyTable
from lightning_prune.latency.timer import machine
from lightning_prune.runs.trainer.ranks import broadcast


@dataclass(frozen=True)
class LatencyAim:
    """What a masker aims at.

    Attributes:
        model: Milliseconds as a function of widths.
        fraction: Fraction of the dense milliseconds that remains.
        measure: Measures the fraction that widths take; None: on a machine that is not this one.
    """

    model: LatencyModel
    fraction: float
    measure: Callable[[Mapping[str, int]], float] | None


class LatencyGoal:
    """The setting of a masker, and the table of the run.

    Args:
        target: Fraction of the dense time that remains, below 1, or milliseconds.
        path: A table from another machine; None: this one is measured.
        mac_target: The other target, which must be None.

    Raises:
        ValueError: two targets.
    """

    def __init__(self, target: float, path: str | None, mac_target: float | None) -> None:
        if mac_target is not None:
            raise ValueError(
                f"latency_target={target} and mac_target={mac_target}: widths meet one of them; "
                "set mac_target=null (None in Python), or leave latency_target out"
            )
        self.target, self.path = target, path
        self.table: LatencyTable | None = None

    def prepare(
        self,
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        example: Any,
    ) -> LatencyAim:
        """Return what to aim at; rank 0 measures, or reads the table, where there is none yet.

        Raises:
            ModuleNotFoundError: the ``onnx`` extra is not installed.
            ValueError: the network cannot be converted to ONNX, the file is no table or of another
                network, or the target is met by the dense network.
        """
        trainer = front.trainer
        if self.table is None:
            found = self._found(trainer, front, groups, names, macs, example)
            self.table = LatencyTable.of_content(found, str(self.path or "what rank 0 measured"))
            rank_zero_info(f"Latency table {self.table.digest}: {self.table.in_words()}.")
        model = self.table.model(macs)
        fraction = self.target if self.target < 1 else self.target / self.table.dense
        if fraction >= 1:
            raise ValueError(
                f"latency_target={self.target} (milliseconds): the dense network takes "
                f"{self.table.dense:.2f}; pass less, or a fraction of it below 1"
            )
        here = self.table.machine == machine()
        threads = self.table.threads
        measure = MeasuredFraction(front.model, groups, example, threads) if here else None
        return LatencyAim(model, fraction, measure)

    def _found(
        self,
        trainer: pl.Trainer,
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        example: Any,
    ) -> Any:
        """Return the content of the table, and on every rank what went wrong on rank 0."""
        content: Any = None
        failure: Exception | None = None
        if trainer.is_global_zero:
            try:
                content = (
                    self._read()
                    if self.path is not None
                    else self._measured(front, groups, names, macs, example)
                )
            except (ValueError, ModuleNotFoundError) as error:
                failure = error
        content, failure = broadcast(trainer, (content, failure))
        if failure is not None:
            raise failure
        return content

    def _read(self) -> dict[str, Any]:
        assert self.path is not None
        content = read_json(Path(self.path))
        if content is None:
            raise ValueError(
                f"latency_table={printable(self.path, 1000)}: there is no such file, or it is no "
                "JSON; write one by python -m lightning_prune latency CHECKPOINT --output FILE"
            )
        return content

    @staticmethod
    def _measured(
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: Sequence[str],
        macs: MacModel,
        example: Any,
    ) -> dict[str, Any]:
        table = measured_table(front.model, groups, names, macs, example, progress=front.progress)
        return table.content()

    def state_dict(self) -> str | None:
        """Return the table as text; None: it is not there yet."""
        return None if self.table is None else json.dumps(self.table.content())

    def load_state_dict(self, state: str | None) -> None:
        """Restore what ``state_dict`` returned."""
        if state is not None:
            self.table = LatencyTable.of_content(json.loads(state), "the checkpoint")
