"""Time the selection of one layer's channels step by step, on one thread.

    python benchmarks/selection.py
    python benchmarks/selection.py --peer-python /path/to/python  # with scikit-learn-extra

Prints a table and writes it as JSON. A second interpreter that has scikit-learn-extra and/or the
kmedoids package gives their sweeps over the same dissimilarities: time (extrapolated where it
would take minutes) and, for every k, our loss against the best of their five seeded runs.
"""

import argparse
import json
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from lightning_prune import functional

HERE = Path(__file__).resolve().parent
STEPS = ("moments", "separability", "embedding", "sweep", "mss", "knee", "choice")
SAMPLES_PER_CLASS, BATCH = 100, 256
Result = TypeVar("Result")


def activations(channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """Draw activations in which about four channels each answer to the classes alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes * SAMPLES_PER_CLASS) % classes
    kinds = torch.randn(max(2, channels // 4), classes, generator=generator)
    own = kinds[torch.arange(channels) % len(kinds)]
    own = own + 0.3 * torch.randn(channels, classes, generator=generator)
    return own.T[labels] + torch.randn(len(labels), channels, generator=generator), labels


class Stopwatch:
    """Median wall and processor seconds of named steps; on a busy machine they differ."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    def time(self, step: str, work: Callable[[], Result]) -> Result:
        """Do the work several times, note the medians, and return the last result."""
        times = []
        for _ in range(self.repeats):
            begin = time.perf_counter(), time.process_time()
            result = work()
            times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        self.wall[step], self.processor[step] = np.median(times, axis=0).tolist()
        return result


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def streamed(samples: Tensor, labels: Tensor, classes: int) -> functional.ClassMoments:
    """Gather moments batch by batch, as a pass over a data set does."""
    moments = functional.class_moments(samples[:0], labels[:0], classes)
    for batch, mine in zip(samples.split(BATCH), labels.split(BATCH), strict=True):
        moments = functional.merge_moments(moments, functional.class_moments(batch, mine, classes))
    return moments


def one_layer(channels: int, classes: int, repeats: int) -> tuple[dict[str, Any], Tensor, Any]:
    """Time every step; return the row of the table, the dissimilarities and the clusterings."""
    samples, labels = activations(channels, classes)
    weights = torch.rand(channels, generator=torch.Generator().manual_seed(1))
    watch = Stopwatch(repeats)
    moments = watch.time("moments", lambda: streamed(samples, labels, classes))
    matrix = watch.time(
        "separability",
        lambda: functional.separability_matrix(moments.mean, moments.variance, moments.count),
    )
    points = watch.time("embedding", lambda: functional.embed_channels(matrix))
    diss = functional.dissimilarity(points)
    clusters = watch.time("sweep", lambda: functional.kmedoids_sweep(diss, range(1, channels + 1)))
    mss = watch.time(
        "mss",
        lambda: [
            functional.mean_simplified_silhouette(diss, c.medoids, c.labels) for c in clusters[1:-1]
        ],
    )
    knee = watch.time("knee", lambda: functional.find_knee(range(2, channels), mss))
    width = functional.clip_width(knee, channels).width
    watch.time(
        "choice",
        lambda: functional.heaviest_per_cluster(clusters[width - 1].labels, weights),
    )
    row = {
        "channels": channels,
        "classes": classes,
        "seconds": watch.wall,
        "processor_seconds": watch.processor,
        "total_seconds": sum(watch.wall.values()),
        "sweep_with_mss_seconds": watch.wall["sweep"] + watch.wall["mss"],
        "sweep_with_mss_processor_seconds": watch.processor["sweep"] + watch.processor["mss"],
        "knee": knee,
        "kept": width,
    }
    return row, diss, clusters


def compare(python: str, diss: Tensor, clusters: Any, seconds: float) -> dict[str, Any]:
    """Let the peers solve the same problem, and set our losses against the best of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder, "problem.npz"), Path(folder, "answer.json")
        np.savez(problem, diss=diss.numpy())
        command = [python, HERE / "selection_peers.py", problem, answer, str(seconds)]
        subprocess.run(command, check=True)
        peers: dict[str, Any] = json.loads(answer.read_text())
    if not peers:
        raise SystemExit(f"{python} has neither scikit-learn-extra nor kmedoids: install one there")
    best: dict[int, float] = {}
    for peer in peers.values():
        for k, loss in peer.pop("best_loss").items():
            best[int(k)] = min(loss, best.get(int(k), loss))
    excess = [100 * (clusters[k - 1].loss / loss - 1) for k, loss in best.items() if loss > 0]
    quality = {"k_compared": len(excess), "median": float(np.median(excess)), "max": max(excess)}
    return {"peers": peers, "loss_above_best_of_peers_percent": quality}


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    cells = [f"{row['channels']:5d}{row['classes']:4d}"]
    cells += [f"{1000 * row['seconds'][step]:16.1f}" for step in STEPS]
    cells += [f"{row['total_seconds']:8.2f} s", f"{row['knee']!s:>6}{row['kept']:5d}"]
    print("".join(cells))


def print_comparison(row: dict[str, Any]) -> None:
    """Print what the peers needed and how the losses compare."""
    ours = row["sweep_with_mss_seconds"]
    for name, peer in row["peers"].items():
        about = "about " if peer["extrapolated"] else ""
        print(
            f"      {name}: sweep without MSS {about}{peer['sweep_seconds']:.3g} s, "
            f"{peer['sweep_seconds'] / ours:.2g} times ours with MSS ({ours:.3g} s)"
        )
    quality = row["loss_above_best_of_peers_percent"]
    print(
        f"      loss against their best run, over {quality['k_compared']} values of k: "
        f"median {quality['median']:+.3f} %, at most {quality['max']:+.3f} %"
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 10, 20, 80])
    parser.add_argument("--repeats", type=int, default=3, help="the median is reported")
    parser.add_argument("--peer-python", help="interpreter that has the packages to compare with")
    parser.add_argument("--peer-seconds", type=float, default=60, help="for each peer and C")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "selection.json")
    parser.add_argument("--quick", action="store_true", help="16 channels, 3 classes, once")
    args = parser.parse_args()
    if args.quick:
        args.channels, args.classes, args.repeats = [16], [3], 1
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    functional.kmedoids(functional.dissimilarity(torch.rand(8, 2)), 3)  # compiles
    imports_mb = peak_mb()
    print(
        f"{'C':>5}{'K':>4}" + "".join(f"{step + ' ms':>16}" for step in STEPS),
        "   total  knee kept",
    )
    rows = []
    with threadpool_limits(1):
        for channels in args.channels:
            for classes in args.classes:
                row, diss, clusters = one_layer(channels, classes, args.repeats)
                rows.append(row)
                print_row(row)
            if args.peer_python:
                row |= compare(args.peer_python, diss, clusters, args.peer_seconds)
                print_comparison(row)
    print(f"peak memory {peak_mb():.0f} MB, of which {imports_mb:.0f} MB after the imports")
    result = {
        "rows": rows,
        "peak_memory_mb": peak_mb(),
        "peak_memory_after_imports_mb": imports_mb,
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {
            name: version(name) for name in ("torch", "numpy", "scikit-learn", "numba", "kneed")
        },
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
