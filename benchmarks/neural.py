"""Time the v2 neural-response network beside one written layer by layer.

    python benchmarks/neural.py

Prints a table and writes it as JSON. ``NeuralResponseNetwork`` and ``PlainNetwork``
(``plain_neural.py``) have the same weights and, checked before anything is timed, the same output
and gradients. Both run in training mode, with dropout, at the reference shapes: 25 frames of
51 x 51 pixels, 42 numbers of behaviour, two sessions. ``forward`` is without gradients,
``forward+backward`` with those of all parameters; each part (front end, blocks of the ResNet,
modulator, readouts) reads what the parts before it made, and gives the gradient of its input as
well, but for the front end.

They take turns; medians over the rounds, processor time, one thread. The third network is a copy
of ours that was cut to the fraction ``--keep`` of the channels of every group, the hidden state of
the ConvGRU among them.
"""

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_neural import PlainNetwork
from torch import Tensor, nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels

HERE = Path(__file__).resolve().parent
CELLS = (64, 48)
PASSES = ("forward", "forward+backward")
Part = tuple[nn.Module, tuple[Tensor, ...]]


def networks() -> tuple[NeuralResponseNetwork, PlainNetwork]:
    """Return both networks with the same weights, none of them at its start of zero or one."""
    torch.manual_seed(0)
    ours, plain = NeuralResponseNetwork(CELLS), PlainNetwork(CELLS)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for block in ours.convnet.blocks:
            block.main.norm.gamma.add_(1.0)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def pruned(network: NeuralResponseNetwork, keep: float) -> NeuralResponseNetwork:
    """Return a copy without all but that fraction of the channels of every group."""
    net = copy.deepcopy(network)
    stimulus, behavior = batch(1)
    groups = trace_groups(net, {"stimulus": stimulus, "behavior": behavior})
    kept, channels = {}, {}
    for name, group in groups.items():
        kept[name] = torch.arange(max(1, round(keep * group.channels)))
        channels[name] = group.channels
    cut_channels(net, groups, PruningPlan(kept, channels))
    return net


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Return a stimulus and a behaviour of noise."""
    generator = torch.Generator().manual_seed(1)
    stimulus = torch.randn(size, 1, 25, 51, 51, generator=generator)
    return stimulus, torch.randn(size, 42, generator=generator)


def total(outputs: Any) -> Tensor:
    """Return a scalar that depends on every output."""
    values = outputs if isinstance(outputs, Sequence) else [outputs]
    return sum((value.square().mean() for value in values), torch.zeros(()))


def difference(ours: nn.Module, plain: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the largest differences of outputs and of gradients, relative to the largest value.

    Raises:
        RuntimeError: one is above 1e-4.
    """
    found = {"output": 0.0, "gradient": 0.0}
    outs = [network.eval()(*inputs) for network in (ours, plain)]
    for mine, other in zip(*outs, strict=True):
        found["output"] = max(found["output"], _relative(mine, other))
    for out in outs:
        total(out).backward()
    others = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        found["gradient"] = max(found["gradient"], _relative(parameter.grad, others[name].grad))
    for network in (ours, plain):
        network.zero_grad()
    if max(found.values()) > 1e-4:
        raise RuntimeError(f"the two networks differ by {found}: there is nothing to compare")
    return found


def saved_mib(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Return what a forward pass in training mode keeps for the backward pass, in MiB."""
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *inputs)}
    kept: dict[int, int] = {}
    held = []  # so that no memory is counted under the address of what was freed

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.train()(*inputs)
    return sum(kept.values()) / 2**20


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-12))


@torch.no_grad()
def parts(network: Any, inputs: tuple[Tensor, ...]) -> dict[str, Part]:
    """Return each part of a network and what it reads; the whole is one of them."""
    stimulus, behavior = inputs
    found: dict[str, Part] = {
        "whole": (network, inputs),
        "front end": (network.frontend, (stimulus,)),
    }
    x = network.frontend(stimulus)
    for index, block in enumerate(network.convnet.blocks):
        found[f"block {index}"] = (block, (x,))
        x = block(x)
    found["modulator"] = (network.modulator, (x, behavior))
    x = network.modulator(x, behavior)
    found["readouts"] = (_All(network.readouts), (x,))
    return found


class _All(nn.Module):
    """Runs several modules on the same input."""

    def __init__(self, modules: nn.ModuleList) -> None:
        super().__init__()
        self.members = modules

    def forward(self, x: Tensor) -> list[Tensor]:
        return [module(x) for module in self.members]


def work(name: str, part: Part, backward: bool) -> Callable[[], None]:
    """Return the call that is timed."""
    module, inputs = part

    def forward() -> None:
        with torch.no_grad():
            module(*inputs)

    def both() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        read = inputs[0].detach()
        if name not in ("whole", "front end"):
            read.requires_grad_()
        total(module(read, *inputs[1:])).backward()

    return both if backward else forward


def measure(candidates: dict[str, nn.Module], size: int, rounds: int) -> list[dict[str, Any]]:
    """Time every part of every network, in turns; return the rows of the table."""
    inputs = batch(size)
    split = {key: parts(network.train(), inputs) for key, network in candidates.items()}
    rows = []
    for name in next(iter(split.values())):
        for label in PASSES:
            calls = {
                key: work(name, found[name], label != "forward") for key, found in split.items()
            }
            taken: dict[str, list[float]] = {key: [] for key in calls}
            for number in range(rounds + 1):
                for key, call in calls.items():
                    begin = time.process_time()
                    call()
                    if number:  # the first one fills caches
                        taken[key].append(time.process_time() - begin)
            seconds = {key: float(np.median(values)) for key, values in taken.items()}
            row = {"part": name, "pass": label, "seconds": seconds}
            row["times_faster"] = seconds["plain"] / seconds["ours"]
            rows.append(row)
            _show(row)
    return rows


def _show(row: dict[str, Any]) -> None:
    times = "".join(f"{1000 * value:10.1f} ms" for value in row["seconds"].values())
    print(f"{row['part']:10s} {row['pass']:17s}{times}{row['times_faster']:9.2f}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="runs whose median is reported")
    parser.add_argument(
        "--keep", type=float, default=0.5, help="fraction of the channels that stay"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results" / "neural.json")
    parser.add_argument("--quick", action="store_true", help="one sample, one round")
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.rounds = 1, 1
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    ours, plain = networks()
    differences = difference(ours, plain, batch(min(args.batch_size, 2)))
    print(f"largest differences: {differences}")
    candidates = {"plain": plain, "ours": ours, "pruned": pruned(ours, args.keep)}
    memory = {key: saved_mib(net, batch(args.batch_size)) for key, net in candidates.items()}
    print("kept for backward: " + ", ".join(f"{k} {v:.0f} MiB" for k, v in memory.items()))
    print(f"{'part':10s} {'pass':17s}{'plain':>13s}{'ours':>13s}{'pruned':>13s}{'faster':>9s}")
    rows = measure(candidates, args.batch_size, args.rounds)
    result = {
        "rows": rows,
        "batch_size": args.batch_size,
        "kept_channels": args.keep,
        "relative_difference": differences,
        "saved_mib": memory,
        "parameters": {
            key: sum(parameter.numel() for parameter in network.parameters())
            for key, network in candidates.items()
        },
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
