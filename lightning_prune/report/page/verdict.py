"""Whether it was worth it, in one sentence and three honest answers."""

import re
from dataclasses import dataclass, field

from lightning_prune.report.page.numbers import bytes_text, compact, metric_text
from lightning_prune.report.page.stored_run import StoredRun
from lightning_prune.report.report_data import ReportData

# Medians of 11 passes on a busy machine differ by this much though the models are the same.
_NOISE = 0.05
_LOWER = re.compile(r"(loss|error|err|mae|mse|rmse|nll|perplexity|divergence)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """One question, answered.

    Attributes:
        question: The question in a word or two.
        holds: Whether the answer is yes.
        text: The numbers behind it.
    """

    question: str
    holds: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """What pruning came to.

    Attributes:
        sentence: All of it in one sentence.
        answers: Smaller, faster, as good: those of them that were measured.
    """

    sentence: str
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Quality:
    """One metric of both models.

    Attributes:
        name: Its name.
        dense: Of the dense model.
        pruned: Of the pruned one.
        lower: Whether less is better.
    """

    name: str
    dense: float
    pruned: float
    lower: bool

    @property
    def gain(self) -> float:
        """Return by how much the pruned model is better; negative: worse."""
        return self.dense - self.pruned if self.lower else self.pruned - self.dense


def is_lower_better(name: str, report: ReportData | None = None) -> bool:
    """Return whether less of a metric is better: as checkpoints were chosen, else by its name.

    >>> is_lower_better("val/loss"), is_lower_better("val/map50"), is_lower_better("test/loss_x")
    (True, False, False)
    """
    rows = [] if report is None else report.checkpoints
    for row in rows:
        if row.monitored == name and row.why.startswith(("highest", "lowest", "among the best")):
            return "lowest" in row.why
    return _LOWER.search(name) is not None


def main_metric(run: StoredRun) -> Quality | None:
    """Return the metric that the run is judged by, of the test where there was one."""
    report = run.report
    if report is None:
        return None
    dense, pruned = report.dense.metrics, report.pruned.metrics
    both = [name for name in dense if name in pruned]
    monitor = run.monitor
    wanted = [] if monitor is None else [f"test/{monitor.partition('/')[2]}", monitor]
    tested = [name for name in both if name.startswith("test/")]
    name = next((one for one in [*wanted, *tested, *both] if one in both), None)
    if name is None:
        return None
    lower = is_lower_better(monitor if name in wanted and monitor else name, report)
    return Quality(name, dense[name], pruned[name], lower)


def verdict(run: StoredRun) -> Verdict:
    """Judge a run by what is stored of it."""
    report = run.report
    if report is None:
        return Verdict("Nothing was pruned in this run: it has no pruning report.")
    if report.trained == "dense":
        return Verdict("No: nothing was pruned; channel usage was tracked and channels were reset.")
    answers = [*_smaller(report), *_faster(report), *_as_good(run)]
    if report.cut is None:
        held = "slices of weights are" if report.slices and not report.layers else "masks are"
        text = f"Not smaller: {held} held at zero and nothing was cut, so size and MACs stay."
        return Verdict(text, answers)
    return Verdict(_sentence(report, main_metric(run)), answers)


def _sentence(report: ReportData, quality: Quality | None) -> str:
    parts = []
    fraction = report.macs_fraction
    if fraction is not None:
        parts.append(f"{fraction:.0%} of the MACs")
    if report.dense.parameters and report.pruned.parameters is not None:
        parts.append(f"{report.pruned.parameters / report.dense.parameters:.0%} of the parameters")
    text = " and ".join(parts) + " remain" if parts else "Channels were cut"
    speed = _speed(report)
    if speed is not None:
        text += f", {speed:.2f} times as fast"
    if quality is None:
        return f"{text}. What that costs is not known: no metric of both models was measured."
    before, after = metric_text(quality.dense), metric_text(quality.pruned)
    if quality.dense == quality.pruned:
        return f"{text}; {quality.name} stays {before}."
    way = "better" if quality.gain > 0 else "worse"
    return f"{text}; {quality.name} is {way}: {before} dense, {after} pruned."


def _smaller(report: ReportData) -> list[Answer]:
    dense, pruned = report.dense, report.pruned
    texts = []
    smaller = False
    if dense.macs and pruned.macs is not None:
        texts.append(f"{compact(dense.macs)} to {compact(pruned.macs)} MACs")
        smaller = pruned.macs < dense.macs
    if dense.parameters and pruned.parameters is not None:
        texts.append(f"{compact(dense.parameters)} to {compact(pruned.parameters)} parameters")
        smaller = smaller or pruned.parameters < dense.parameters
    if dense.bytes and pruned.bytes is not None:
        texts.append(f"{bytes_text(dense.bytes)} to {bytes_text(pruned.bytes)} of weights")
    return [Answer("Smaller", smaller, ", ".join(texts))] if texts else []


def _speed(report: ReportData) -> float | None:
    dense, pruned = report.dense.latency_ms, report.pruned.latency_ms
    return dense / pruned if dense and pruned else None


def _faster(report: ReportData) -> list[Answer]:
    speed = _speed(report)
    if speed is None:
        return []
    times = f"{report.dense.latency_ms:.3g} to {report.pruned.latency_ms:.3g} ms"
    where = f"{times} on {report.device}, an example at a time" if report.device else times
    if report.latency_runtime is not None:
        where = f"{where}, in {report.latency_runtime}"
    if abs(speed - 1) < _NOISE:
        return [Answer("Faster", False, f"{where}: no difference beyond noise")]
    return [Answer("Faster", speed > 1, f"{where}, {speed:.2f} times as fast")]


def _further_epochs(report: ReportData | None) -> str:
    """Return how much longer the pruned model has trained: a gain may be that of training.

    >>> from lightning_prune.report.history import History
    >>> _further_epochs(ReportData(first_mask_epoch=12, history=History([22, 23])))
    ', after 12 more epochs'
    """
    if report is None or report.first_mask_epoch is None:
        return ""
    if report.history is None or not report.history.epochs:
        return ""
    further = report.history.epochs[-1] + 1 - report.first_mask_epoch
    return f", after {further} more epoch{'s' * (further != 1)}" if further > 0 else ""


def _as_good(run: StoredRun) -> list[Answer]:
    quality = main_metric(run)
    if quality is None:
        return []
    numbers = f"{quality.name} {metric_text(quality.dense)} to {metric_text(quality.pruned)}"
    if quality.dense == quality.pruned == 0:
        return [Answer("As good", False, f"{numbers}: neither model solves the task")]
    difference = f"{quality.pruned - quality.dense:+.4f}"
    if quality.dense:
        difference += f", {quality.pruned / quality.dense - 1:+.1%}"
    text = f"{numbers} ({difference}{_further_epochs(run.report)})"
    text += _interval(run, quality)
    return [Answer("As good", quality.gain >= 0, text)]


def _interval(run: StoredRun, quality: Quality) -> str:
    """Return by how much the models differ on other cells or images, for the end of a sentence."""
    paired = (run.samples or {}).get("paired") or {}
    cells = run.cells or {}
    if quality.name.endswith("/bps") and cells.get("interval_95"):
        low, high = cells["interval_95"][:2]
        return f"; cell by cell the mean differs by {low:+.4f} to {high:+.4f} (95%)"
    if quality.name == "test/map50_95" and paired.get("interval_95"):
        low, high = paired["interval_95"][:2]
        chance = ": no difference beyond chance" if low <= 0 <= high else ""
        return (
            f"; over {paired['images']} images, resampled, it differs by {low:+.4f} to {high:+.4f} "
            f"(95%){chance}"
        )
    return ""
