"""Time training steps and evaluation on a processor: channels last and bf16 beside 32 bits.

    python benchmarks/cpu_training.py
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/cpu_training.py --output /tmp/no_amx.json

YOLOv8n at the sizes of the digits (160 px, batch 16) and of blood cells (224 and 320 px, batch 8),
dense, cut to about half of the channels in multiples of 8, and cut to odd widths; the v2 network of
neural responses, dense. A step is forward pass, loss, backward pass and AdamW; bf16 is autocast, as
Lightning's bf16-mixed. The four variants take turns; medians over the rounds of processor time, one
thread. Prints ratios to contiguous tensors in 32 bits (above 1 is faster) and writes them as JSON.
oneDNN's variable, as in the second line, takes instructions away that the processor has: what other
processors would do.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.cli.processor_choices import has_fast_bf16
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.memory_format import lay_out_channels_last

HERE = Path(__file__).resolve().parent
VARIANTS = {
    "32 bits": (False, False),
    "32 bits, channels last": (True, False),
    "bf16": (False, True),
    "bf16, channels last": (True, True),
}
SIZES = ((160, 16), (224, 8), (320, 8))
WIDTHS = ("dense", "half, by 8", "half, odd")
Loss = Callable[[nn.Module], Tensor]


def detector(widths: str) -> DetectionModule:
    """Return a YOLOv8n of ten classes, cut as it is named."""
    torch.manual_seed(0)
    module = DetectionModule(num_classes=10, size="n", image_size=64)
    module.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    if widths == "dense":
        return module
    groups = trace_groups(module, torch.rand(1, 3, 64, 64))
    keep, channels = {}, {}
    for name, group in groups.items():
        half = group.channels // 2
        width = max(8, half // 8 * 8) if widths == "half, by 8" else half - 1 + half % 2
        keep[name] = torch.arange(min(width, group.channels) // group.step * group.step)
        channels[name] = group.channels
    cut_channels(module, groups, PruningPlan(keep, channels))
    return module


def boxes(images: int) -> dict[str, Tensor]:
    """Return three boxes for each image."""
    random = torch.Generator().manual_seed(0)
    count = 3 * images
    return {
        "image": torch.arange(count) % images,
        "label": torch.randint(0, 10, (count,), generator=random),
        "box": torch.rand(count, 4, generator=random) * 0.3 + 0.2,
    }


def cases(quick: bool) -> dict[str, tuple[Callable[[], nn.Module], Loss, Callable[..., Any]]]:
    """Return by name: what makes a model, its loss, and its evaluation."""
    found: dict[str, Any] = {}
    for size, batch in ((32, 2),) if quick else SIZES:
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        data = (images, boxes(batch))
        for widths in WIDTHS:
            found[f"YOLOv8n, {size} px, batch {batch}, {widths}"] = (
                lambda widths=widths: detector(widths),
                lambda model, data=data: model.training_step(data, 0),
                lambda model, images=images: model(images),
            )
    if not quick:
        stimulus, behavior = torch.randn(4, 1, 25, 51, 51), torch.randn(4, 42)
        found["neural v2, batch 4, dense"] = (
            lambda: NeuralResponseNetwork((64, 48)),
            lambda model: sum(out.square().mean() for out in model(stimulus, behavior)),
            lambda model: model(stimulus, behavior),
        )
    return found


def timed(model: nn.Module, half: bool, loss: Loss, optimizer: torch.optim.Optimizer) -> float:
    """Return the processor time of a training step."""
    model.train()
    begin = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        value = loss(model)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return time.process_time() - begin


def evaluated(model: nn.Module, half: bool, evaluate: Callable[..., Any]) -> float:
    """Return the processor time of a pass in eval mode."""
    model.eval()
    begin = time.process_time()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        evaluate(model)
    return time.process_time() - begin


def measure(case: Any, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of each variant, and the ratios to the first one."""
    make, loss, evaluate = case
    made = make()
    models, times = {}, {"step": {}, "evaluation": {}}
    for name, (last, half) in VARIANTS.items():
        model = copy.deepcopy(made)
        if last:
            lay_out_channels_last([model])
        models[name] = (model, half, torch.optim.AdamW(model.parameters(), 1e-3))
        for kind in times:
            times[kind][name] = []
    for turn in range(rounds + 1):  # the first one compiles kernels
        for name, (model, half, optimizer) in models.items():
            pair = timed(model, half, loss, optimizer), evaluated(model, half, evaluate)
            if turn:
                times["step"][name].append(pair[0])
                times["evaluation"][name].append(pair[1])
    row: dict[str, Any] = {}
    for kind, by_name in times.items():
        middle = {name: statistics.median(values) for name, values in by_name.items()}
        base = middle["32 bits"]
        row[kind] = {
            name: {"ms": round(1e3 * value, 1), "faster": round(base / value, 2)}
            for name, value in middle.items()
        }
    return row


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cpu_training.json")
    parser.add_argument("--quick", action="store_true", help="one round of small images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    print(f"{'':44}" + "".join(f"{name:>26}" for name in VARIANTS))
    for name, case in cases(arguments.quick).items():
        rows[name] = measure(case, 1 if arguments.quick else arguments.rounds)
        for kind, by_variant in rows[name].items():
            cells = [
                f"{found['ms']:.0f} ms, {found['faster']:.2f}" for found in by_variant.values()
            ]
            print(
                f"{name + ', ' + kind:>44}" + "".join(f"{cell:>26}" for cell in cells), flush=True
            )
    content = {
        "rows": rows, "threads": 1, "machine": platform.machine(), "torch": torch.__version__,
        "fast_bf16": has_fast_bf16(), "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
    }  # fmt: skip
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
