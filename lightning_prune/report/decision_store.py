"""The numbers of each decision as files in `report_data/`: a small JSON and arrays beside it."""

import io
import re
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.files import write_bytes
from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.sequential import GroupDecision

FOLDER = "report_data"
VERSION = 1
_LARGEST = 2.0  # of a separability


@dataclass(frozen=True)
class StoredDecision:
    """What was stored of the choice among a group's channels.

    Attributes:
        facts: Content of the JSON file: ``group``, ``channels``, ``keep``, ``knee``, ``bound``,
            ``status``, ``reason``, ``criterion``, ``classes`` (names), ``method`` of the
            embedding, ``clusterer`` (its settings or None), ``sources`` (names of layers), ``mss``
            (pairs of k and value) and ``losses`` (pairs of width and loss).
        arrays: Name -> array: ``norms`` (C,), ``importance`` (C,), ``separability`` (C, P) as
            bytes, 255 for 2, ``embedding`` (C, 2), ``labels`` (C,), and of each source i
            ``count_i`` (K,), ``mean_i`` and ``variance_i`` (n, K), ``channel_i`` (n,); those that
            are known.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def separability(self) -> np.ndarray | None:
        """Return the (C, P) separability in [0, 2], to one part in 255; None: not measured."""
        found = self.arrays.get("separability")
        return None if found is None else found.astype(np.float64) * (_LARGEST / 255)


def group_file(group: str) -> str:
    """Return a group's name as the name of a file, without suffix.

    >>> group_file("backbone.p1.conv:2"), group_file("a/b c")
    ('backbone.p1.conv_2', 'a_b_c')
    """
    return re.sub(r"[^\w.-]", "_", group)


def write_decision(
    folder: Path, decision: GroupDecision, record: DecisionRecord, classes: list[str]
) -> Path:
    """Write what a decision rests on into ``report_data/`` of a run's folder; return the JSON file.

    Args:
        folder: The run's folder.
        decision: What was decided.
        record: What was known then.
        classes: Names of the classes, as far as they are known.
    """
    arrays = {"norms": record.norms.float().numpy()}
    if record.importance is not None:
        arrays["importance"] = record.importance.double().numpy()
    mss: list[list[float]] = []
    method = None
    if record.clustering is not None:
        seen, width = record.clustering, len(decision.keep)
        bytes_ = (seen.matrix.clamp(0, _LARGEST) * (255 / _LARGEST)).round().byte()
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


def read_decision(folder: Path, group: str) -> StoredDecision | None:
    """Read what is stored of a group; None: nothing, or nothing of this version."""
    path = folder / FOLDER / f"{group_file(group)}.json"
    facts = read_json(path)
    if facts is None or facts.get("version") != VERSION or facts.get("group") != group:
        return None
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            return StoredDecision(facts, {name: file[name] for name in file.files})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return StoredDecision(facts)
