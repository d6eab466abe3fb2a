"""What a benchmark times: networks in runtimes, and files in theirs."""

import ast
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.export import as_ultralytics, example_of, load_module
from lightning_prune.cli.model_argument import missing_runtime
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.errors import ConfigError
from lightning_prune.export.batches import with_batch
from lightning_prune.export.bundle.openvino_model import openvino_model
from lightning_prune.export.bundle.output_judge import input_arrays
from lightning_prune.export.bundle.read_bundle import is_bundle, read_bundle
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.export.runtimes.onnx_file import OnnxFile
from lightning_prune.export.runtimes.open_file import is_runtime_file, open_file
from lightning_prune.export.runtimes.openvino_file import OpenVinoFile
from lightning_prune.graph.forward_pass import call

Run = Callable[[Sequence[np.ndarray]], object]
_TITLES = {"pytorch": "PyTorch", "compiled": "torch.compile", "onnx": "ONNX Runtime",
           "openvino": "OpenVINO"}  # fmt: skip
_NEEDS = {"onnx": (("onnx", "onnxruntime", "onnxscript"), "onnx"),
          "openvino": (("onnx", "onnxscript", "openvino"), "onnx,openvino")}  # fmt: skip
_SUFFIXES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: Of the checkpoint or file.
        runtime: What runs it.
        run: Runs it once.
        bytes: Of what is deployed; None: nothing that is on the disk.
        metric: Name and value, where a bundle says them.
        int8: Whether its layers multiply 8-bit integers.
    """

    name: str
    runtime: str
    run: Run
    bytes: int | None = None
    metric: tuple[str, float] | None = None
    int8: bool = False


@dataclass
class Wanted:
    """What the command line says of all variants.

    Attributes:
        runtimes: Of checkpoints.
        threads: Of every runtime.
        module_class: As for ``load_module``.
        input_shape: As for ``example_of``.
        side: Of images, or None.
        left_out: Takes a sentence for everything that is not installed.
    """

    runtimes: Sequence[str]
    threads: int
    module_class: str | None
    input_shape: list[int] | None
    side: int | None
    left_out: list[str]


def variants_of(path: Path, wanted: Wanted, label: str = "") -> tuple[list[Variant], Any]:
    """Return the rows of a model, and an example input of one sample where it knows one.

    Raises:
        ConfigError: it is none that is known.
        FileNotFoundError: there is none.
    """
    if is_bundle(path):
        return [*_of_bundle(path, wanted, label)], None
    if is_runtime_file(path):
        file = open_file(path, wanted.threads)
        beside = path.with_suffix(".bin")
        size = path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" else 0)
        example = example_of_file(file, wanted.side)
        title = _SUFFIXES[path.suffix.lower()]
        return [Variant(label or path.name, title, file, size, None, "int8" in path.stem)], example
    checkpoint = checkpoint_argument(path)
    module = load_module(checkpoint, wanted.module_class)
    side = None if wanted.side is None else [wanted.side]
    example = example_of(module, wanted.input_shape, side)
    return [*_of_module(module, example, label or checkpoint.name, wanted)], example


def _of_bundle(folder: Path, wanted: Wanted, label: str) -> Iterator[Variant]:
    for one in read_bundle(folder):
        missing = missing_runtime(one)
        if missing is not None:
            wanted.left_out.append(f"{one.path.name} is left out: {missing}")
            continue
        if not is_runtime_file(one.path):
            continue
        values = one.gate.get("values") or {}
        metric = next(
            ((name, values[name]) for name in ("map50_95", "accuracy", "agreement")
             if values.get(name) is not None), None
        )  # fmt: skip
        yield Variant(
            f"{label} {one.path.name}".strip(), _SUFFIXES[one.path.suffix.lower()],
            open_file(one.path, wanted.threads), one.bytes, metric, one.kind.endswith("int8"),
        )  # fmt: skip


def _of_module(module: Any, example: Any, name: str, wanted: Wanted) -> Iterator[Variant]:
    options: dict[str, Any] = {}
    if isinstance(module, DetectorModule):
        options = as_ultralytics(module, example, None, half=False)[1]
    content: bytes | None = None
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    for runtime in wanted.runtimes:
        packages, extra = _NEEDS.get(runtime, ((), ""))
        missing = [one for one in packages if importlib.util.find_spec(one) is None]
        if missing:
            say = f"{_TITLES[runtime]} is left out: pip install 'lightning-prune[{extra}]'"
            if say not in wanted.left_out:
                wanted.left_out.append(say)
            continue
        title = _TITLES[runtime]
        if runtime in ("pytorch", "compiled"):
            run = _torch_run(module, example, compiled=runtime == "compiled")
            yield Variant(name, title, run, weights)
            continue
        content = content or onnx_model(module, example, **options)
        if runtime == "onnx":
            yield Variant(name, title, OnnxFile(content, wanted.threads), len(content))
        else:
            file = OpenVinoFile(openvino_model(content), wanted.threads)
            yield Variant(name, title, file, weights)


def _torch_run(module: nn.Module, example: Any, compiled: bool) -> Run:
    leaves, spec = tree_flatten(example)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    module.eval()
    network: Any = torch.compile(module) if compiled else module

    def run(arrays: Sequence[np.ndarray]) -> object:
        given = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            given[place] = torch.from_numpy(array)
        with torch.inference_mode():
            return call(network, tree_unflatten(given, spec))

    return run


def example_of_file(file: Any, side: int | None) -> Any:
    """Return zeros of the shapes that a file takes; None where they are free and not known."""
    size = side
    try:
        found = ast.literal_eval(file.facts.get("imgsz", "None"))
    except (ValueError, SyntaxError):
        found = None
    if size is None and isinstance(found, list | tuple) and found:
        size = int(found[0])
    shapes = []
    for port in file.inputs:
        rest = [size if one is None else one for one in port.shape[1:]]
        known = [one for one in rest if one is not None]
        if len(known) < len(rest):
            return None
        shapes.append(torch.zeros(port.shape[0] or 1, *known))
    return shapes[0] if len(shapes) == 1 else tuple(shapes)


def inputs_for(example: Any, batch: int) -> list[np.ndarray]:
    """Return seeded noise of a batch, as arrays.

    Raises:
        ConfigError: no model says what it takes.
    """
    if example is None:
        raise ConfigError(
            "no model says which images it takes: pass --image-size, or --dense with a checkpoint"
        )
    generator = np.random.default_rng(0)
    return [
        generator.random(array.shape, dtype=np.float32) if array.dtype == np.float32 else array
        for array in input_arrays(with_batch(example, batch))
    ]
