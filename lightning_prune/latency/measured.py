"""Measures a network on this machine: the table of its kernels, and networks of chosen widths."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.job import latency_job
from lightning_prune.latency.table import LatencyTable, table_of
from lightning_prune.latency.timer import measure, whole_times
from lightning_prune.latency.whole_models import whole_model

_ROUNDS = 30


def measured_table(
    module: nn.Module,
    groups: ChannelGroups,
    names: Sequence[str],
    macs: MacModel,
    example_input: Any,
    *,
    threads: int = 1,
    plans: int = 5,
    seed: int = 0,
    progress: Callable[[Sequence[Any], str], Iterable[Any]] = lambda items, _: items,
) -> LatencyTable:
    """Measure the table of a network on this machine, with ONNX Runtime in 32 bits.

    Args:
        module: The dense network; it is left as it is.
        groups: Its channel groups.
        names: Groups whose widths will vary.
        macs: Its MACs as a function of widths.
        example_input: Its input.
        threads: Threads of the runtime.
        plans: Whole networks of random widths that are measured too.
        seed: Of these widths.
        progress: ``(items, title) -> items``; shows how far it has come.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted to ONNX.
    """
    job = latency_job(
        module, groups, names, example_input, plans=plans, seed=seed, progress=progress
    )
    times = measure(
        job.kernels, job.whole, threads, _ROUNDS, lambda own: progress(own, "Timing kernels")
    )
    return table_of(job.description(), times, macs)


class MeasuredFraction:
    """Measures which fraction of the dense network's time a network of other widths takes.

    Both take turns. The dense one is converted once.

    Args:
        module: The dense network; it is left as it is.
        groups: Its channel groups.
        example_input: Its input.
        threads: Threads of the runtime.
    """

    def __init__(
        self, module: nn.Module, groups: ChannelGroups, example_input: Any, threads: int = 1
    ) -> None:
        self._module, self._groups, self._example = module, groups, example_input
        self._threads = threads
        self._dense: bytes | None = None

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the fraction at which groups keep these many channels (others all)."""
        if self._dense is None:
            self._dense = whole_model(self._module, self._groups, {}, self._example)
        cut = whole_model(self._module, self._groups, widths, self._example)
        dense, own = whole_times([self._dense, cut], self._threads, 2 * _ROUNDS)
        return own / dense
