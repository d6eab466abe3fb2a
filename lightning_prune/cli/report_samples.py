"""Store what both models of a run make of a few samples, for its page."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.paired_precision import detector_difference
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
    try:
        content = _content(data, dense, pruned)
    except Exception as error:  # a picture may not cost a run the numbers that come after it
        rank_zero_warn(
            f"the samples of report.html could not be made ({type(error).__name__}: {error}); the "
            "page is drawn without them"
        )
        return
    if content is not None:
        write_json(Path(folder) / FOLDER / SAMPLES, {"version": VERSION, **content})


def _content(
    data: Any, dense: LightningModule | None, pruned: LightningModule
) -> dict[str, Any] | None:
    if isinstance(pruned, DetectorModule):
        before = dense if isinstance(dense, DetectorModule) else None
        names = [str(name) for name in getattr(data, "names", None) or []]
        images = sample_boxes(before, pruned, data.test_dataloader(), names)
        found: dict[str, Any] = {"kind": "detection", "images": images}
        if before is not None:
            found["paired"] = detector_difference(before, pruned, data.test_dataloader())
        return found
    if isinstance(pruned, NeuralResponseModule):
        known = dense if isinstance(dense, NeuralResponseModule) else None
        return {"kind": "neural", "cells": sample_rates(known, pruned, data.test_dataloader())}
    return None
