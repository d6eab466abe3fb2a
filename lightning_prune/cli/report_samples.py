"""Store what both models of a run make of a few samples, for its page."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.sample_boxes import sample_boxes
from lightning_prune.files.write_json import write_json
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.neural.sample_rates import sample_rates
from lightning_prune.report.page.sample_figures import VERSION
from lightning_prune.report.page.stored_run import SAMPLES
from lightning_prune.report.stored_decision import FOLDER


@rank_zero_only
def write_samples(
    folder: str | Path, data: Any, dense: LightningModule | None, pruned: LightningModule
) -> None:
    """Write ``report_data/samples.json``, where the module is a detector or of neural responses.

    Args:
        folder: The run's folder.
        data: Its data module; its test split is looked at.
        dense: The dense model; None: it was not kept.
        pruned: The trained model.
    """
    content: dict[str, Any] = {"version": VERSION}
    if isinstance(pruned, DetectorModule):
        before = dense if isinstance(dense, DetectorModule) else None
        names = [str(name) for name in getattr(data, "names", None) or []]
        images = sample_boxes(before, pruned, data.test_dataloader(), names)
        content |= {"kind": "detection", "images": images}
    elif isinstance(pruned, NeuralResponseModule):
        known = dense if isinstance(dense, NeuralResponseModule) else None
        cells = sample_rates(known, pruned, data.test_dataloader())
        content |= {"kind": "neural", "cells": cells}
    else:
        return
    write_json(Path(folder) / FOLDER / SAMPLES, content)
