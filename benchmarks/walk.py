"""Time the walk: choosing channels, refitting layers and norms, beside plain forward passes.

    python benchmarks/walk.py
    python benchmarks/walk.py --images 32 --image-size 160

All groups of YOLOv8n, weights scrambled, half the MACs, photographs as noise of several scales;
one thread. Prints a table and writes it as JSON. ``passes`` is what everything together costs as a
multiple of one forward pass of the dense network over the same images; ``algebra`` is the part of
it that solves and eliminates, which does not grow with the images. Memory is the most that the
process held beyond what it held before.
"""

import argparse
import copy
import json
import os
import platform
import resource
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.engine.compression import Compression
from lightning_prune.functional.reconstruction import elimination, refit
from lightning_prune.graph.forward_pass import call
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.repaired_losses import repaired_losses
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.walked_refit import walked_refit

HERE = Path(__file__).resolve().parent


def pictures(images: int, size: int, batch: int) -> list[torch.Tensor]:
    """Return batches of noise that is rough and smooth, as photographs are."""
    random = torch.Generator().manual_seed(0)
    made = []
    for start in range(0, images, batch):
        count = min(batch, images - start)
        parts = [
            F.interpolate(torch.rand(count, 3, size // s, size // s, generator=random), size)
            for s in (32, 8, 1)
        ]
        made.append(torch.stack(parts).mean(0))
    return made


def timed(work: object) -> tuple[float, object]:
    """Return the processor time of a call, and what it gave."""
    begin = time.process_time()
    result = work()  # type: ignore[operator]
    return time.process_time() - begin, result


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure one round."""
    torch.manual_seed(0)
    net = YOLOv8("n", num_classes=80).eval()
    scramble(net)
    batches = pictures(arguments.images, arguments.image_size, arguments.batch)
    with torch.no_grad():
        for batch in batches[:1]:
            net(batch)
        forward, _ = timed(lambda: [net(batch) for batch in batches])
    begin = peak()
    algebra = Algebra()
    # The groups themselves are timed by benchmarks/graph.py.
    known = Compression(net, batches[:1], powers=(1.0,))
    places = known._places(None, arguments.images)
    with algebra:
        choosing, losses = timed(
            lambda: repaired_losses(net, known.groups, known._allowed, batches, call, places=places)
        )
        known.losses = losses
        plan: PruningPlan = known.plan(0.5, 1.0)
        dense = copy.deepcopy(net)
        walking, found = timed(
            lambda: walked_refit(net, dense, known.groups, plan, batches, call, places=places)
        )
    whole = choosing + walking
    return {
        "groups": len(known.groups),
        "layers_refitted": len(found.errors),
        "norms": len(found.norms),
        "seconds": {
            "forward": forward, "choosing": choosing, "walking": walking,
            "algebra": algebra.seconds,
        },
        "passes": round(whole / forward, 2),
        "passes_without_algebra": round((whole - algebra.seconds) / forward, 2),
        "memory_mib": round(peak() - begin),
    }  # fmt: skip


class Algebra:
    """Take the time of elimination and of the solutions while it is entered."""

    seconds = 0.0

    def __enter__(self) -> None:
        from lightning_prune.policies.selection import repaired_losses as chooser
        from lightning_prune.surgery import walked_refit as walker

        def watched(work: object) -> object:
            def run(*args: object, **kwargs: object) -> object:
                took, result = timed(lambda: work(*args, **kwargs))  # type: ignore[operator]
                self.seconds += took
                return result

            return run

        chooser.eliminate = watched(elimination.eliminate)  # type: ignore[assignment]
        walker.refit_weight = watched(refit.refit_weight)  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        from lightning_prune.policies.selection import repaired_losses as chooser
        from lightning_prune.surgery import walked_refit as walker

        chooser.eliminate = elimination.eliminate
        walker.refit_weight = refit.refit_weight


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "walk.json")
    parser.add_argument("--quick", action="store_true", help="8 small images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        arguments.images, arguments.image_size = 8, 64
    row = measure(arguments)
    seconds = row["seconds"]
    assert isinstance(seconds, dict)
    print("processor seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items()))
    print(
        f"{row['groups']} groups, {row['layers_refitted']} layers, {row['norms']} norms: "
        f"{row['passes']} forward passes, {row['passes_without_algebra']} without the algebra; "
        f"{row['memory_mib']} MiB"
    )
    content = {
        **row, "images": arguments.images, "image_size": arguments.image_size, "threads": 1,
        "machine": platform.machine(), "torch": torch.__version__, "processors": os.cpu_count(),
    }  # fmt: skip
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
