"""What a run came to, in one small file that a sweep and scripts can read."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.files.write_json import write_json
from lightning_prune.runs.norm_drop import norm_drop

RESULT = "result.json"


@rank_zero_only
def write_result(
    folder: str | Path,
    monitor: str,
    value: float | None,
    metrics: Mapping[str, float],
    macs: float | None = None,
    objectives: Mapping[str, float] | None = None,
) -> None:
    """Write `result.json`: metrics, fall of the group norms, remaining MACs.

    Args:
        folder: Output folder of the run; its `metrics.csv`, if any, is read for what the stages
            logged.
        monitor: Name of the monitored metric.
        value: Its last value; None where the run did not log it.
        metrics: Further metrics, such as those of the test.
        macs: Fraction of the dense MACs that the cut model has; None where nothing was cut: that
            of the masked model, if the stages logged it.
        objectives: What the run returns to a sweeper, in its order, where that is not `value`.
    """
    folder = Path(folder)
    rows = _rows(folder / "metrics.csv")
    norms = norm_drop(rows)
    content = {
        "monitor": monitor,
        "value": value,
        "metrics": dict(metrics),
        "norm_drop": None if norms is None else norms.drop,
        "low_channels": None if norms is None else norms.low_channels,
        "macs": _masked_macs(rows) if macs is None else macs,
    }
    if objectives is not None:
        content["objectives"] = dict(objectives)
    write_json(folder / RESULT, _finite(content))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _masked_macs(rows: list[dict[str, str]]) -> float | None:
    masked = [row["pruning/macs"] for row in rows if row.get("pruning/macs")]
    return float(masked[-1]) if masked else None


def _finite(value: Any) -> Any:
    """Write NaN and infinity as text: JSON does not know them, and a sweep should show them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
