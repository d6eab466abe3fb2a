"""What a pruning report holds, and how it is written and read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_prune.files.write_json import write_json
from lightning_prune.report.history import History

VERSION = 1
FILE = "pruning_report.json"
Side = Literal["dense", "pruned"]


@dataclass
class ModelFacts:
    """Size, speed and metrics of the dense or the pruned model; None: not measured.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates of a forward pass of the example.
        metrics: Name -> value, finite.
        latency_ms: Median time of a forward pass of the example, in milliseconds.
        bytes: Size of its weights and buffers.
    """

    parameters: int | None = None
    macs: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    bytes: int | None = None


@dataclass
class LayerRow:
    """What became of a layer.

    Attributes:
        name: The layer.
        block: The module that it belongs to.
        group: Its channel group.
        channels_before: Channels of the dense layer.
        channels_after: Channels that stay.
        active_channels: Channels of the masked layer that are not zero.
        pruning_ratio: Fraction of the channels removed, in [0, 1).
        knee: Knee of the MSS curve; None: not looked for.
        bound: What set the width.
        status: ``pruned``, ``fallback`` or ``left``.
        reason: Why it was left alone or fell back; empty otherwise.
        separability: Mean separability of its channels, in [0, 2]; None: not measured.
        separability_at_random: What labels dealt out at random give.
        noise: Whether its separability is no better than that.
        count: How many different profiles its channels have; None: not counted.
    """

    name: str
    block: str
    group: str
    channels_before: int
    channels_after: int
    active_channels: int
    pruning_ratio: float
    knee: int | None
    bound: str
    status: str
    reason: str
    separability: float | None = None
    separability_at_random: float | None = None
    noise: bool = False
    count: int | None = None

    @property
    def label(self) -> str:
        """Return what tables call it: the layer, or ``layer:2`` where that is its group."""
        return self.group if self.group.startswith(f"{self.name}:") else self.name


@dataclass
class SeparabilityFacts:
    """How many groups separability has decided, of those that were pruned.

    Attributes:
        groups: Groups that were pruned.
        decided: Those whose channels its clusters chose, where it is better than chance.
        noise: Those where it is not, whoever chose.
        fraction: ``decided`` of ``groups``, in [0, 1].
    """

    groups: int
    decided: int
    noise: int
    fraction: float

    @classmethod
    def of(cls, rows: Sequence[LayerRow]) -> "SeparabilityFacts | None":
        """Return what the rows of all layers come to; None where it was measured in none."""
        groups = {row.group: row for row in rows if row.status != "left"}.values()
        measured = [row for row in groups if row.separability is not None]
        if not measured:
            return None
        noise = sum(row.noise for row in measured)
        decided = sum(row.status == "pruned" and not row.noise for row in measured)
        return cls(len(groups), decided, noise, decided / len(groups))


@dataclass
class CutFacts:
    """When channels were cut, and what the cut changed.

    Attributes:
        epoch: Epoch (0-based) at whose start they were cut.
        global_step: Optimizer steps before it.
        output_difference: Difference of the masked and the cut model's outputs, as a fraction of
            the largest output; None: not compared.
        mixed_by: Layers that take statistics over channels of which some were cut.
    """

    epoch: int
    global_step: int
    output_difference: float | None
    mixed_by: list[str]


@dataclass
class DistillationFacts:
    """How the pruned model learnt from the dense one, beside its own task.

    Attributes:
        epoch: First epoch (0-based) in which it did.
        outputs: Weight of the outputs in the loss.
        features: Weight of the features.
    """

    epoch: int
    outputs: float
    features: float


@dataclass
class LabelFreeFacts:
    """What came of the steps that were made right after the cut, without labels.

    Attributes:
        steps: Steps that were made.
        kept: After how many of them the weights were taken; 0: all were taken back.
        before: Agreement with the dense model, on images that were held back, before the first one.
        after: That of the weights that were kept.
    """

    steps: int
    kept: int
    before: float
    after: float


@dataclass
class CheckpointRow:
    """A checkpoint that a callback has written.

    Attributes:
        file: Its path, relative to the report's folder where it is inside.
        holds: ``dense``, ``masked`` or ``cut``; None: not known.
        epoch: Last epoch (0-based) that its weights were trained in; None: none, or not known.
        metric: The value by which it was chosen, finite.
        monitored: Name of that metric.
        why: Why it was written.
        bytes: Size of the file; None: not known.
        sha256: Digest of its content; None: not known.
    """

    file: str
    holds: str | None
    epoch: int | None
    metric: float | None
    monitored: str | None
    why: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass
class LayerUsage:
    """Channels of a layer, how many were used, and how many reset: E numbers each."""

    channels: list[int]
    used: list[int]
    reset: list[int]


@dataclass
class Usage:
    """Which channels were used, epoch by epoch.

    Attributes:
        threshold: Mean magnitude above which a channel counts as used.
        epochs: The E epochs (0-based).
        layers: Layer -> its numbers.
    """

    threshold: float
    epochs: list[int]
    layers: dict[str, LayerUsage]

    @classmethod
    def from_plain(cls, usage: Mapping[str, Any]) -> "Usage":
        """Read what ``asdict`` gave."""
        layers = {
            name: LayerUsage(**{key: list(numbers) for key, numbers in row.items()})
            for name, row in usage["layers"].items()
        }
        return cls(usage["threshold"], list(usage["epochs"]), layers)


@dataclass
class ReportData:
    """All that ``pruning_report.json`` holds, under the same names.

    Attributes:
        version: Version of these fields.
        dense: The model before the first mask.
        pruned: The model that training ends with.
        layers: One row per layer whose channels were chosen, front to back.
        cut: The cut; None: nothing was cut.
        slices: Layer -> fraction of its weights that slices hold at zero, in [0, 1].
        first_mask_epoch: Epoch (0-based) at whose start something was masked first.
        checkpoints: Files that callbacks have written.
        usage: Channel usage; None: not tracked.
        distillation: How it learnt from the dense model; None: it did not.
        label_free: What steps without labels brought; None: there were none.
        seed: Seed of the run.
        versions: Package -> its version.
        device: Where the model was trained.
        module: Name of the LightningModule's class; None: not known.
        separability: How many groups it has decided; None: it was not measured.
        classes: Names of the classes of the data; empty: not known.
        refused: Layers that make channels but could not be pruned -> why.
        history: The run, epoch by epoch; None: not recorded.
        latency_runtime: What the latencies were measured in.

    >>> data = ReportData(dense=ModelFacts(macs=80), pruned=ModelFacts(macs=20))
    >>> data.macs_fraction, ReportData.from_plain(data.to_plain()) == data
    (0.25, True)
    """

    version: int = VERSION
    dense: ModelFacts = field(default_factory=ModelFacts)
    pruned: ModelFacts = field(default_factory=ModelFacts)
    layers: list[LayerRow] = field(default_factory=list)
    cut: CutFacts | None = None
    slices: dict[str, float] = field(default_factory=dict)
    first_mask_epoch: int | None = None
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    usage: Usage | None = None
    distillation: DistillationFacts | None = None
    label_free: LabelFreeFacts | None = None
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    module: str | None = None
    separability: SeparabilityFacts | None = None
    classes: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    history: History | None = None
    latency_runtime: str | None = None

    @property
    def trained(self) -> Side:
        """What training ends with: the pruned model, or the dense one where only usage was seen."""
        return "pruned" if self.layers or self.slices or not self.usage else "dense"

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was pruned and no usage tracked."""
        return not (self.layers or self.slices or self.usage)

    @property
    def macs_fraction(self) -> float | None:
        """Fraction of the dense model's MACs that remains; None: nothing was measured."""
        if self.pruned.macs is None or not self.dense.macs:
            return None
        return self.pruned.macs / self.dense.macs

    def of(self, side: Side) -> ModelFacts:
        """Return the facts of one of the two models."""
        return self.dense if side == "dense" else self.pruned

    def to_plain(self) -> dict[str, Any]:
        """Return numbers, texts, lists and dicts, as JSON and checkpoints hold them."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "ReportData":
        """Read what ``to_plain`` gave.

        Raises:
            ValueError: it is of another version.
        """
        # Reports from before versions have the same fields.
        if content.get("version", VERSION) != VERSION:
            raise ValueError(
                f"the pruning report is of version {content.get('version')}, and this "
                f"lightning_prune reads version {VERSION}: read it with the lightning_prune that "
                "wrote it (`versions` in the file), or run again"
            )
        cut, usage = content["cut"], content["usage"]
        # Reports of earlier versions do not say.
        distilled, steps = content.get("distillation"), content.get("label_free")
        decided, history = content.get("separability"), content.get("history")
        typed = {
            "dense": ModelFacts(**content["dense"]),
            "pruned": ModelFacts(**content["pruned"]),
            "layers": [LayerRow(**row) for row in content["layers"]],
            "cut": None if cut is None else CutFacts(**cut),
            "checkpoints": [CheckpointRow(**row) for row in content["checkpoints"]],
            "usage": None if usage is None else Usage.from_plain(usage),
            "separability": None if decided is None else SeparabilityFacts(**decided),
            "distillation": None if distilled is None else DistillationFacts(**distilled),
            "label_free": None if steps is None else LabelFreeFacts(**steps),
            "history": None if history is None else History.from_plain(history),
        }
        return cls(**{**content, **typed})


def write_report(folder: Path, data: ReportData) -> Path:
    """Write ``pruning_report.json`` whole or not at all; return its path."""
    path = folder / FILE
    write_json(path, data.to_plain())
    return path


def read_report(path: str | Path) -> ReportData:
    """Read ``pruning_report.json``.

    Raises:
        ValueError: it is of another version.
    """
    return ReportData.from_plain(json.loads(Path(path).read_text(encoding="utf-8")))
