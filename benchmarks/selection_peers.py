"""Run other k-medoids packages on stored dissimilarities, in their own interpreter.

Started by selection.py as `PEER_PYTHON selection_peers.py problem.npz answer.json SECONDS`; needs
numpy and whichever of scikit-learn-extra and kmedoids is to be compared with.
"""

import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = range(5)


def sklearn_extra_pam(diss: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Medoids by PAM of scikit-learn-extra; different seeds start from different medoids."""
    from sklearn_extra.cluster import KMedoids

    init = "build" if seed == 0 else "k-medoids++"
    model = KMedoids(k, metric="precomputed", method="pam", init=init, random_state=seed)
    return model.fit(diss).medoid_indices_


def rust_fasterpam(diss: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Medoids by FasterPAM of the kmedoids package from a random start."""
    import kmedoids

    return kmedoids.fasterpam(diss, k, random_state=seed, n_cpu=1).medoids


def run(solve: Callable[..., Any], diss: np.ndarray, seconds: float) -> dict[str, Any]:
    """Solve for every k, or for as fine a grid of k as the time allows, with five seeds each."""
    n = len(diss)
    grid = sorted({2, n - 1, *np.linspace(2, n - 1, 6).round().astype(int).tolist()})
    start = time.perf_counter()
    seconds_per_k = {}
    for k in grid:  # one run each, to see what the whole would take
        begin = time.perf_counter()
        solve(diss, k, 0)
        seconds_per_k[k] = time.perf_counter() - begin
    whole = float(np.interp(range(2, n), list(seconds_per_k), list(seconds_per_k.values())).sum())
    left = seconds - (time.perf_counter() - start)
    step = max(1, int(np.ceil(whole * len(SEEDS) / max(left, 1e-3))))
    k_values = list(range(2, n, step)) if step < n else grid
    seeds = SEEDS if step < n else range(1)
    losses: dict[int, list[float]] = {k: [] for k in k_values}
    times = []
    for seed in seeds:
        begin = time.perf_counter()
        for k in k_values:
            losses[k].append(float(diss[:, solve(diss, k, seed)].min(axis=1).sum()))
        times.append(time.perf_counter() - begin)
    complete = len(k_values) == n - 2
    return {
        "best_loss": {str(k): min(values) for k, values in losses.items()},
        "seeds": len(seeds),
        "sweep_seconds": float(np.median(times)) if complete else whole,
        "extrapolated": not complete,
    }


def main() -> None:
    """Answer one problem file."""
    problem, answer, seconds = sys.argv[1:]
    warnings.simplefilter("ignore")
    diss = np.load(problem, allow_pickle=False)["diss"]
    peers = {"sklearn_extra": sklearn_extra_pam, "kmedoids": rust_fasterpam}
    found = {name: f for name, f in peers.items() if importlib.util.find_spec(name)}
    result = {name: run(solve, diss, float(seconds)) for name, solve in found.items()}
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
