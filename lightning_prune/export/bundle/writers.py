"""How the files of each kind are made, and opened again to be judged."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_prune.export.bundle.gate import Run
from lightning_prune.export.bundle.int8_onnx import int8_onnx
from lightning_prune.export.bundle.openvino_model import (
    int8_openvino,
    openvino_files,
    openvino_model,
)
from lightning_prune.export.bundle.source import Source
from lightning_prune.export.runtimes.open_file import open_file
from lightning_prune.files.read_safetensors import read_safetensors
from lightning_prune.files.safetensors_bytes import safetensors_bytes
from lightning_prune.surgery.compare import eval_outputs
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict

Files = dict[str, bytes]
"""Content by name; the first is the one that is opened."""


def _onnx(source: Source, name: str) -> Files:
    return {name: source.onnx}


def _int8_onnx(source: Source, name: str) -> Files:
    return {name: int8_onnx(source.onnx, source.feeds)}


def _openvino(source: Source, name: str) -> Files:
    return openvino_files(openvino_model(source.onnx), name)


def _int8_openvino(source: Source, name: str) -> Files:
    return openvino_files(int8_openvino(openvino_model(source.onnx), source.feeds), name)


def _safetensors(source: Source, name: str) -> Files:
    return {name: safetensors_bytes(source.model.state_dict(), source.names)}


WRITERS: dict[str, Callable[[Source, str], Files]] = {
    "onnx": _onnx,
    "onnx-int8": _int8_onnx,
    "openvino": _openvino,
    "openvino-int8": _int8_openvino,
    "safetensors": _safetensors,
}


def open_to_judge(source: Source, path: Path) -> Run:
    """Open a file that was written, in its own runtime; weights alone in the network as built."""
    if path.suffix != ".safetensors":
        return open_file(path)
    model = source.rebuild()
    load_pruned_state_dict(model, read_safetensors(path)[0], strict=True)
    return run_of(model, source.example)


def run_of(model: nn.Module, example: Any) -> Run:
    """Return a network as something that maps arrays to arrays."""
    leaves, spec = tree_flatten(example)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    model = copy.deepcopy(model).eval()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            given[place] = torch.from_numpy(np.ascontiguousarray(array))
        return [one.numpy() for one in eval_outputs(model, tree_unflatten(given, spec))]

    return run
