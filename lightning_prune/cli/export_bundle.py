"""Writes a bundle of files from a checkpoint: `export --format onnx,onnx-int8,...`."""

import argparse
import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.cli.real_inputs import (
    RealInputs,
    inputs_of_images,
    inputs_of_run,
    inputs_of_yaml,
    noise_inputs,
)
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.predict.detector import class_tuple
from lightning_prune.detection.predict.options import check_image_size
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.kinds import Kind
from lightning_prune.export.bundle.source import Source
from lightning_prune.export.bundle.write_bundle import Bundle, write_bundle
from lightning_prune.graph.macs import count_macs


def bundle_folder(given: Path | None, checkpoint: Path) -> Path:
    """Return the folder of a bundle: the one given, else one beside the checkpoint.

    Raises:
        ConfigError: it is not empty.
    """
    folder = given or checkpoint.with_name(f"{checkpoint.stem}_bundle")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output {folder}: is not empty; name a new folder for the bundle")
    return folder


def find_inputs(
    args: argparse.Namespace,
    module: L.LightningModule,
    example: Any,
    checkpoint: Path,
    kinds: list[Kind],
    batch: int | None,
) -> RealInputs:
    """Return what the files are calibrated on and judged by, as the command line says.

    Raises:
        ConfigError: files in 8 bits are wanted, and nothing says from which images.
    """
    side = None if args.image_size is None else max(args.image_size)
    if args.data is not None:
        detector = _only_detectors(module, "--data")
        return inputs_of_yaml(detector, args.data, args.limit, batch, _side(detector, side))
    run = args.calibrate or _run_of(checkpoint)
    if run is None:
        int8 = [kind.name for kind in kinds if kind.int8]
        if int8:
            raise ConfigError(
                f"{', '.join(int8)}: the ranges of activations are found on images: pass "
                "--calibrate with the folder of a run or of images, or --data data.yaml"
            )
        return noise_inputs(example, batch)
    if args.calibrate is not None and not _is_run(run):
        detector = _only_detectors(module, f"--calibrate {run}, a folder of images,")
        size = check_image_size(_side(detector, side))
        return inputs_of_images(detector, [str(run)], args.limit, batch, size)
    return inputs_of_run(module, run, args.limit, batch, side)


def make_bundle(
    module: L.LightningModule,
    example: Any,
    checkpoint: Path,
    folder: Path,
    kinds: list[Kind],
    options: Mapping[str, Any],
    inputs: RealInputs,
    tolerance: float | None = None,
    accept_loss: float | None = None,
    dense: DetectorModule | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint, and print a line for every file.

    Args:
        module: The checkpoint's, on the CPU.
        example: What it takes.
        checkpoint: Where it is from.
        folder: Where to.
        kinds: What is written.
        options: Of ``onnx_model``.
        inputs: To calibrate on and judge by.
        tolerance: See ``OutputJudge``.
        accept_loss: See ``OutputJudge``.
        dense: The network before it was pruned, where nothing is labelled: see ``DetectorJudge``.
    """
    built = _as_built(module)
    source = Source(
        module, example, checkpoint.stem,
        lambda: copy.deepcopy(module if built is None else built),
        options, inputs.calibration, _names(module),
    )  # fmt: skip
    facts = _facts(module, built, example, checkpoint)
    judge = inputs.judge(module, tolerance, accept_loss, dense)
    return write_bundle(source, kinds, judge, folder, facts, lambda text: print(text, flush=True))


def _facts(
    module: L.LightningModule, dense: nn.Module | None, example: Any, checkpoint: Path
) -> dict[str, Any]:
    tensors = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
    network = _size(module, example) | {
        "class": type(module).__name__,
        "input": [list(one.shape) for one in tensors],
        "kinds": [str(one.dtype).removeprefix("torch.") for one in tensors],
    }
    return {
        "model": checkpoint.stem,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "task": "detect" if isinstance(module, DetectorModule) else "other",
        "network": network,
        "dense": None if dense is None else _size(dense, example),
    }


def _size(module: nn.Module, example: Any) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"macs": count_macs(module, example), "parameters": parameters}


def _as_built(module: L.LightningModule) -> nn.Module | None:
    """Return the module as its constructor builds it, without a cut; None where that fails."""
    try:
        return type(module)(**dict(module.hparams)).eval()
    except Exception:  # of a class of the user's: the card then says nothing of the dense network
        return None


def _names(module: L.LightningModule) -> tuple[str, ...]:
    hparams: Any = module.hparams
    if isinstance(module, DetectorModule):
        return class_tuple(hparams["names"], hparams["num_classes"])
    return tuple(map(str, hparams.get("names") or ()))


def _only_detectors(module: L.LightningModule, what: str) -> DetectorModule:
    if not isinstance(module, DetectorModule):
        raise ConfigError(
            f"{what} is for detectors, and this is a {type(module).__name__}: pass --calibrate "
            "with the folder of its run"
        )
    return module


def _side(module: DetectorModule, given: int | None) -> int:
    return given or int(module.hparams.get("image_size") or 640)


def _is_run(folder: Path) -> bool:
    folder = folder.parent if folder.name == "checkpoints" else folder
    return (folder / "config.yaml").is_file()


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run that a checkpoint is in; None: it is in none."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == "checkpoints" and _is_run(folder) else None
