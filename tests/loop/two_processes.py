"""A plain loop in two processes: ``python -m tests.loop.two_processes FOLDER METHOD...``.

Each process reads batches of its own, and writes plan and weights to FOLDER/METHOD_rank{n}.pt.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F

from lightning_prune.loop.pruning import Pruning
from tests.loop.plain import batch, write
from tests.networks import Residual, make

KEYS = {
    "is_prune": True, "start_epoch": 0, "end_epoch": 1, "input_shape": [1, 3, 8, 8],
    "global_prune_rate": 0.5, "gradient_images": 32, "compensate_images": 32,
    "recalibrate_images": 32,
}  # fmt: skip


def loss(model: nn.Module, given: Any) -> torch.Tensor:
    images, labels = given
    return F.cross_entropy(model(images).flatten(1)[:, :4], labels)


def pruned(folder: Path, method: str, seeds: list[int], wrap: bool = False) -> dict[str, Any]:
    """Mask once, from the batches of these seeds; return plan and weights."""
    model = make(Residual).train()
    wrapped = nn.parallel.DistributedDataParallel(model) if wrap else model
    settings = write(folder, KEYS | {"pruning_method": method})
    batches = [batch(seed) for seed in seeds]
    pruner = Pruning(model, settings, model.forward, batches=batches, loss_fn=loss)
    pruner.prune(wrapped, 0)
    return {"plan": dict(pruner.channel_pruner.plan.keep), "weights": model.state_dict()}


def run(rank: int, folder: Path, methods: list[str]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    own = folder / f"rank{rank}"
    own.mkdir()
    for method in methods:
        found = pruned(own, method, [rank, rank + 2], wrap=True)
        torch.save(found, folder / f"{method}_rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(run, (Path(sys.argv[1]), sys.argv[2:]), nprocs=2)
