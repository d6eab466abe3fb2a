"""Times of several things that take turns, so that a noisy machine disturbs all alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

_LOW = 20


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call.

    Attributes:
        wall: Median by the clock.
        wall_low: 20th percentile by the clock.
        processor: Median of the processor's time, of all threads together.
        processor_low: 20th percentile of it: other processes disturb it least.
    """

    wall: float
    wall_low: float
    processor: float
    processor_low: float


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    notify: Callable[[int], None] = lambda done: None,
) -> dict[str, Timing]:
    """Return how long each takes: A B A B ..., after two calls each that are not counted.

    Args:
        runs: Name -> what is called.
        rounds: Counted calls of each.
        notify: Takes the number of rounds that are done.

    Raises:
        ValueError: no round at all.

    >>> found = interleaved({"nothing": lambda: None}, rounds=3)
    >>> found["nothing"].wall_low <= found["nothing"].wall < 100
    True
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: pass at least 1")
    for run in runs.values():
        run()
        run()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for done in range(rounds):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
        notify(done + 1)
    return {name: _timing(np.array(pairs) * 1000) for name, pairs in taken.items()}


def _timing(pairs: np.ndarray) -> Timing:
    (wall, processor), (wall_low, processor_low) = (
        np.median(pairs, axis=0), np.percentile(pairs, _LOW, axis=0)
    )  # fmt: skip
    return Timing(float(wall), float(wall_low), float(processor), float(processor_low))
