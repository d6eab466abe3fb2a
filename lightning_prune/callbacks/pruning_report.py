"""What pruning did, layer by layer, and what it cost and gained."""

import copy
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

import lightning_prune
from lightning_prune.callbacks._data import example_input, noise_like
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.graph.macs import count_macs
from lightning_prune.report.files import write_json
from lightning_prune.report.latency import measure_latency
from lightning_prune.report.layers import layer_rows
from lightning_prune.report.table import print_report
from lightning_prune.surgery.cut import PrunedChannels

Side = Literal["dense", "pruned"]
_PACKAGES = ("torch", "lightning", "torch-pruning", "scikit-learn")


class PruningReport(PruningStage):
    """Record what was pruned and why; print a table and write ``pruning_report.json``.

    Parameters, MACs and latency are measured before and after the cut, the two models' latencies
    in turn. Metrics are those of the last validation before the first mask and of the last one of
    the run; more can be added with ``add_metrics``.

    Args:
        folder: Where ``pruning_report.json`` is written when training ends; None: the Trainer's
            ``default_root_dir``.
        latency_rounds: Forward passes per model in the latency measurement; 0: not measured.
        show: Print the table when training ends.

    Raises:
        ValueError: a negative number of rounds.
    """

    def __init__(
        self, folder: str | None = None, latency_rounds: int = 11, show: bool = True
    ) -> None:
        if latency_rounds < 0:
            raise ValueError(f"latency_rounds={latency_rounds}: pass 0 (not measured) or more")
        self.folder = folder
        self.latency_rounds = latency_rounds
        self.show = show
        self.content: dict[str, Any] = {
            "dense": _empty_side(),
            "pruned": _empty_side(),
            "layers": [],
            "cut": None,
        }
        self._dense: nn.Module | None = None

    def add_metrics(self, side: Side, metrics: Mapping[str, float]) -> None:
        """Add metrics of the dense or the pruned model, such as those of a test."""
        numbers = {name: float(value) for name, value in metrics.items()}
        self.content[side]["metrics"].update(numbers)

    def write(self, folder: str | Path) -> Path:
        """Write ``pruning_report.json`` into a folder, atomically, and return its path."""
        path = Path(folder) / "pruning_report.json"
        write_json(path, self.content)
        return path

    @rank_zero_only
    def print(self) -> None:
        """Print the table of layers and of what pruning did to the model."""
        print_report(self.content)

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the dense model, unless a resumed run has done so."""
        self.content["seed"] = _seed()
        own = {"lightning-prune": lightning_prune.__version__}
        self.content["versions"] = own | {name: version(name) for name in _PACKAGES}
        self.content["device"] = str(pl_module.device)
        if self.content["dense"]["macs"] is not None:
            return
        example = example_input(trainer, pl_module)
        self._measure("dense", pl_module, example)
        if self.latency_rounds:
            # Shapes only: the copy costs no memory while the dense model trains.
            self._dense = copy.deepcopy(pl_module).to("meta")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last metrics of the dense model when the first mask appears."""
        if not self.content["layers"]:
            rows = self._rows(trainer)
            if any(row["status"] != "left" for row in rows):
                self.add_metrics("dense", _validation_metrics(trainer))
        self.content["layers"] = self._rows(trainer) or self.content["layers"]

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Measure the cut model beside the dense one."""
        example = noise_like(example_input(trainer, pl_module))
        self.content["cut"] = {
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "output_difference": pruned.output_difference,
        }
        self._measure("pruned", pl_module, example)
        if self._dense is not None:
            dense = self._dense.to_empty(device=pl_module.device)
            for value in [*dense.parameters(), *dense.buffers()]:
                value.data.zero_()
            models = {"dense": dense, "pruned": pl_module}
            for side, taken in measure_latency(models, example, self.latency_rounds).items():
                self.content[side]["latency_ms"] = taken
            self._dense = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the report, write it and print it."""
        if not self.content["layers"]:
            return
        self.add_metrics("pruned", _validation_metrics(trainer))
        if trainer.is_global_zero:
            self.write(self.folder or trainer.default_root_dir)
            if self.show:
                self.print()

    def state_dict(self) -> dict[str, Any]:
        """Return the report as far as it is known."""
        return {"content": copy.deepcopy(self.content)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the report of a resumed run."""
        self.content = copy.deepcopy(state_dict["content"])

    def _rows(self, trainer: pl.Trainer) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for callback in getattr(trainer, "callbacks"):  # noqa: B009 - not in Lightning's stubs
            groups = getattr(callback, "groups", None)
            decisions = getattr(callback, "decisions", None)
            if groups is not None and decisions:
                rows += layer_rows(decisions, groups)
        return rows

    def _measure(self, side: Side, model: nn.Module, example: Any) -> None:
        self.content[side]["parameters"] = sum(p.numel() for p in model.parameters())
        self.content[side]["macs"] = count_macs(model, example)


def _empty_side() -> dict[str, Any]:
    return {"parameters": None, "macs": None, "metrics": {}, "latency_ms": None}


def _seed() -> int:
    import os

    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))


def _validation_metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val") and bool(torch.isfinite(value))
    }
