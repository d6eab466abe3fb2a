"""Write the numbers of each decision into `report_data/`."""

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lightning_prune.files import write_bytes
from lightning_prune.files.write_json import write_json
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.stored_decision import (
    FOLDER,
    LARGEST,
    VERSION,
    group_file,
    read_decision,
)


def write_decision(
    folder: Path, decision: GroupDecision, record: DecisionRecord, classes: list[str]
) -> Path:
    """Write what a decision rests on into ``report_data/`` of a run's folder; return the JSON file.

    Args:
        folder: The run's folder.
        decision: What was decided.
        record: What was known then.
        classes: Names of the classes, as far as they are known.

    What a resumed run does not know of channels that were gone before (NaN) is taken from the file
    that is there, else 0.
    """
    arrays = {"norms": record.norms.float().numpy()}
    if record.importance is not None:
        arrays["importance"] = record.importance.double().numpy()
    if any(np.isnan(values).any() for values in arrays.values()):
        earlier = read_decision(folder, decision.group)
        for name, values in arrays.items():
            known = None if earlier is None else earlier.arrays.get(name)
            if known is None or known.shape != values.shape:
                known = np.zeros_like(values)
            arrays[name] = np.where(np.isnan(values), known, values)
    mss: list[list[float]] = []
    method = None
    if record.clustering is not None:
        seen, width = record.clustering, len(decision.keep)
        bytes_ = (seen.matrix.clamp(0, LARGEST) * (255 / LARGEST)).round().byte()
        arrays |= {
            "separability": bytes_.numpy(),
            "embedding": seen.embedding[:, :2].float().numpy(),
            "labels": seen.at(width).labels.short().numpy(),
        }
        mss = [[int(k), float(v)] for k, v in zip(seen.k_values, seen.mss, strict=True)]
        method = seen.method
    for number, source in enumerate(record.sources):
        arrays |= {
            f"count_{number}": source.moments.count.cpu().numpy(),
            f"mean_{number}": source.moments.mean.cpu().float().numpy(),
            f"variance_{number}": source.moments.variance.cpu().float().numpy(),
            f"channel_{number}": source.channel.cpu().short().numpy(),
        }
    lost = record.elimination
    losses = [] if lost is None else zip(lost.widths, lost.losses, strict=True)
    plain = {key: value for key, value in decision.state_dict().items() if key != "keep"}
    facts = {
        "version": VERSION,
        **plain,
        "keep": decision.keep.tolist(),
        "criterion": record.criterion,
        "classes": classes,
        "method": method,
        "clusterer": None if record.clusterer is None else asdict(record.clusterer),
        "sources": [source.layer for source in record.sources],
        "mss": mss,
        "losses": [[int(width), float(loss)] for width, loss in losses],
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    path = folder / FOLDER / f"{group_file(decision.group)}.json"
    write_bytes(path.with_suffix(".npz"), content.getvalue())
    write_json(path, facts)
    return path
