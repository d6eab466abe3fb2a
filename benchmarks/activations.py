"""Time the collection of object activations against the validation pass without it.

    python benchmarks/activations.py

Prints a table and writes it as JSON. Every variant is a pass over the same batches in memory:

- forward: the network alone;
- matching: the network, and which objects it found (`object_samples`);
- validation: the network and the suppression of validation (confidence 0.001, every class of a
  box, 300 detections); mAP itself is not counted;
- collection: `collect_activations` as the recipe does it: the network, the matching, reading the
  layers and their class statistics; for all prunable layers, and with every convolution hooked;
- kept maps: the same without `object_positions`, when feature maps are kept until the end of the
  pass.

The variants take turns; medians over the passes are reported, and ratios of medians. Wall time is
what a user waits, processor time is what a busy machine does not disturb.
"""

import argparse
import json
import os
import platform
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.network.postprocess import non_maximum_suppression
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.activations import ObjectActivations, collect_activations

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LIGHTNING_PRUNE_SHARED", HERE.parents[1] / "shared"))
PHOTOS, WEIGHTS = SHARED / "data" / "coco_open", SHARED / "data" / "yolov8n_coco"
Batch = tuple[Tensor, dict[str, Tensor]]


def photographs(side: int, batch_size: int) -> tuple[DetectionModule, list[Batch]]:
    """Return YOLOv8n with COCO weights, and 60 COCO photographs."""
    model = DetectionModule(weights=str(WEIGHTS / "yolov8n_coco.safetensors"), image_size=side)
    data = YoloFolderDataModule(root=PHOTOS, image_size=side, batch_size=batch_size)
    data.setup("fit")
    return model, [*data.collection_dataloader(), *data.val_dataloader()]


def digits(side: int, batch_size: int) -> tuple[DetectionModule, list[Batch]]:
    """Return an untrained YOLOv8n and the built-in canvases of handwritten digits."""
    model = DetectionModule(num_classes=10, image_size=side)
    data = DigitsDetectionDataModule(
        train_images=32, val_images=8, test_images=8, image_size=side, batch_size=batch_size
    )
    data.setup("fit")
    return model, list(data.collection_dataloader())


def to_device(batches: Sequence[Batch], device: torch.device) -> list[Batch]:
    """Move batches."""
    return [
        (images.to(device), {name: value.to(device) for name, value in targets.items()})
        for images, targets in batches
    ]


class Passes:
    """The variants, each a pass over all batches.

    Args:
        model: The detector.
        batches: Batches on its device.
        matching: ``detected``, or ``all`` where an untrained network finds nothing.
    """

    def __init__(self, model: DetectionModule, batches: list[Batch], matching: Any) -> None:
        self.model, self.batches, self.matching = model.eval(), batches, matching
        names = {module: name for name, module in model.named_modules()}
        self.prunable = trace_groups(model, model.example_input_array).prunable_layers
        frozen = {layer for layer in model.network.head.modules() if not trainable(layer)}
        self.convolutions = tuple(
            name
            for module, name in names.items()
            if isinstance(module, nn.Conv2d) and module not in frozen
        )

    def variants(self) -> dict[str, Callable[[], Any]]:
        """Return what is timed, by name."""
        return {
            "forward": lambda: self.each(lambda batch, outputs: None),
            "matching": lambda: self.each(self.model.object_samples),
            "validation": lambda: self.each(self.suppress),
            "collection": lambda: self.collect(self.prunable),
            "collection_every_convolution": lambda: self.collect(self.convolutions),
            "collection_kept_maps": lambda: self.collect(self.prunable, read_at_once=False),
        }

    @torch.no_grad()
    def each(self, then: Callable[[Batch, Tensor], Any]) -> None:
        """Run the network over all batches, and something on every output."""
        for batch in self.batches:
            then(batch, self.model(batch[0]))

    def suppress(self, _batch: Batch, outputs: Tensor) -> None:
        """Suppress as validation does."""
        non_maximum_suppression(outputs, 0.001, 0.7, 300, multi_label=True)

    def collect(
        self, layers: Sequence[str], read_at_once: bool = True, repeats: int = 1
    ) -> ObjectActivations:
        """Collect over all batches, ``repeats`` times over."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rare classes: the photographs are few
            return collect_activations(
                self.model,
                (batch for _ in range(repeats) for batch in self.batches),
                layers,
                self.model.object_samples,
                lambda model, batch: model(batch[0]),
                objects_of=self.model.object_positions if read_at_once else None,
                matching=self.matching,
            )


def trainable(layer: nn.Module) -> bool:
    """Return whether a layer has parameters to train (the fixed integral of the head has none)."""
    return any(parameter.requires_grad for parameter in layer.parameters())


def measure(passes: Passes, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median wall and processor seconds of a pass of every variant, in turns."""
    variants, cuda = passes.variants(), next(passes.model.parameters()).is_cuda
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for work in variants.values():  # not counted: compiles, fills caches
        work()
    for _ in range(rounds):
        for name, work in variants.items():
            begin = time.perf_counter(), time.process_time()
            work()
            if cuda:
                torch.cuda.synchronize()
            taken[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    middle = {name: np.median(times, axis=0).tolist() for name, times in taken.items()}
    return {name: {"wall": wall, "processor": cpu} for name, (wall, cpu) in middle.items()}


def objects_read(found: ObjectActivations) -> int:
    """Return how many objects went into the statistics."""
    return 0 if found.moments is None else int(found.moments.count.sum())


def one_setting(passes: Passes, rounds: int, side: int, batch_size: int) -> dict[str, Any]:
    """Measure one image size and batch size; return the row of the table."""
    seconds = measure(passes, rounds)
    ratios = {
        base: {
            name: {clock: seconds[name][clock] / seconds[base][clock] for clock in seconds[name]}
            for name in seconds
            if name.startswith("collection")
        }
        for base in ("forward", "matching", "validation")
    }
    return {
        "image_size": side,
        "batch_size": batch_size,
        "images": sum(len(images) for images, _ in passes.batches),
        "objects_read": objects_read(passes.collect(passes.prunable[:1])),
        "layers": {"collection": len(passes.prunable), "every": len(passes.convolutions)},
        "seconds": seconds,
        "times_the_pass_without": ratios,
    }


def peak_mb(device: torch.device) -> float:
    """Peak memory so far, in MB: of the accelerator, or resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(passes: Passes, device: torch.device, repeats: Sequence[int]) -> list[dict[str, Any]]:
    """Return peak memory, and the size of what is left, as the number of images grows."""
    rows = []
    images = sum(len(images) for images, _ in passes.batches)
    for times in repeats:
        found = passes.collect(passes.convolutions, repeats=times)
        kept = 0 if found.moments is None else sum(v.nbytes for v in vars(found.moments).values())
        rows.append(
            {"images": times * images, "peak_mb": peak_mb(device), "result_mb": kept / 2**20}
        )
    return rows


def print_row(row: dict[str, Any]) -> None:
    """Print the lines of one setting."""
    print(
        f"\n{row['image_size']} px, batch {row['batch_size']}, {row['images']} images, "
        f"{row['objects_read']} objects read"
    )
    for name, taken in row["seconds"].items():
        per_image = [1000 * taken[clock] / row["images"] for clock in ("wall", "processor")]
        line = f"  {name:30s}{per_image[0]:8.2f} ms {per_image[1]:8.2f} ms (processor) an image"
        for base, ratios in row["times_the_pass_without"].items():
            if name in ratios:
                wall, cpu = ratios[name]["wall"], ratios[name]["processor"]
                line += f"  {base} x {wall:.3f} ({cpu:.3f})"
        print(line)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[160, 320])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rounds", type=int, default=15, help="passes whose median is reported")
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 4, 16], help="for memory")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "activations.json")
    parser.add_argument("--digits", action="store_true", help="built-in data, untrained network")
    parser.add_argument("--quick", action="store_true", help="digits at 64 px, once")
    args = parser.parse_args()
    if args.quick:
        args.image_sizes, args.batch_sizes, args.rounds, args.digits = [64], [8], 1, True
        args.repeats = [1, 2]
    if not args.digits and not (PHOTOS.is_dir() and WEIGHTS.is_dir()):
        print(f"no COCO photographs and weights in {SHARED}: digits and an untrained network")
        args.digits = True
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    load, matching = (digits, "all") if args.digits else (photographs, "detected")
    rows = []
    for side in args.image_sizes:
        for batch_size in args.batch_sizes:
            model, batches = load(side, batch_size)
            passes = Passes(model.to(device), to_device(batches, device), matching)
            if not rows:  # before anything else raises the peak of the process
                growth = memory(passes, device, args.repeats)
            rows.append(one_setting(passes, args.rounds, side, batch_size))
            print_row(rows[-1])
    print()
    for line in growth:
        print("{images:6d} images: peak {peak_mb:.0f} MB, result {result_mb:.2f} MB".format(**line))
    result = {
        "rows": rows,
        "memory": growth,
        "data": "digits" if args.digits else "coco_open",
        "matching": matching,
        "threads": 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else args.device,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
