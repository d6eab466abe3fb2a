"""Write a checkpoint as a file for another runtime: `python -m lightning_prune export`."""

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.export_parser import export_parser
from lightning_prune.cli.own_class import own_class
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.network.network import LARGEST_STRIDE
from lightning_prune.detection.ultralytics_metadata import ultralytics_metadata
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.kinds import read_kinds
from lightning_prune.export.bundle.write_bundle import Bundle
from lightning_prune.export.formats import FORMATS
from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.loading import load_pruned
from lightning_prune.runs.configuration.consent import check_class_of

_THEIR_SIZE = 640


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 where it is wrong, with 1 where the check fails.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = export_parser().parse_args(argv)
    if args.format not in FORMATS or args.calibrate is not None or args.data is not None:
        _bundle(args)
        return
    chosen = FORMATS[args.format]
    try:
        chosen.check_installed()
        checkpoint = checkpoint_argument(args.checkpoint)
        module = load_module(checkpoint, args.module_class)
        example = example_of(module, args.input_shape, args.image_size)
        takes, options = "", {"batch": args.batch}
        if isinstance(module, DetectorModule):
            takes, options = as_ultralytics(module, example, args.batch, args.half)
        output = args.output or checkpoint.with_suffix(chosen.suffix)
        difference = chosen.load_writer()(
            module, output, example, half=args.half, opset=args.opset, tolerance=args.tolerance,
            **options,
        )  # fmt: skip
    except (ConfigError, ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except AssertionError as error:
        print(f"{error} ({output}); --tolerance allows more", file=sys.stderr)
        sys.exit(1)
    what = takes or type(module).__name__
    size = output.stat().st_size / 1e6
    print(f"{output}: {what}, {size:.1f} MB; {chosen.runtime} differs by {difference:.1e}")


def _bundle(args: argparse.Namespace) -> None:
    """Write a folder with several files; exit with 1 where one of them misses its gate."""
    from lightning_prune.cli.export_bundle import bundle_folder, find_inputs, make_bundle

    try:
        kinds = read_kinds(args.format)
        if args.half:
            raise ConfigError("--half has no place beside the formats of a bundle: leave it out")
        if args.limit < 1:
            raise ConfigError(f"--limit {args.limit}: pass at least 1 image")
        checkpoint = checkpoint_argument(args.checkpoint)
        folder = bundle_folder(args.output, checkpoint)
        module = load_module(checkpoint, args.module_class)
        example = example_of(module, args.input_shape, args.image_size)
        options: dict[str, Any] = {"batch": args.batch, "opset": args.opset}
        if isinstance(module, DetectorModule):
            takes, layout = as_ultralytics(module, example, args.batch, half=False)
            print(takes)
            options |= layout
        inputs = find_inputs(args, module, example, checkpoint, kinds, options["batch"])
        bundle = make_bundle(
            module, example, checkpoint, folder, kinds, options, inputs, args.tolerance,
            args.accept_loss,
        )  # fmt: skip
    except (ConfigError, ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    say_bundle(bundle)
    if bundle.refused:
        sys.exit(1)


def say_bundle(bundle: Bundle) -> None:
    """Print where a bundle is, and on standard error what is not in it."""
    print(f"{bundle.folder}: {len(bundle.written)} files, README.md and bundle.json")
    if bundle.refused:
        print(
            f"not in it: {', '.join(bundle.refused)}, see above; --accept-loss and --tolerance "
            "allow more",
            file=sys.stderr,
        )


def as_ultralytics(
    module: DetectorModule, example: Tensor, batch: int | None, half: bool
) -> tuple[str, dict[str, Any]]:
    """Return what to say of a detector's file, and the arguments that make it one for their tools.

    These letterbox to rectangles where a file's batch is free: then all sizes must be.
    """
    channels, height, width = example.shape[-3:]
    if height % LARGEST_STRIDE or width % LARGEST_STRIDE:
        raise ConfigError(
            f"--image-size {height} {width}: both must be multiples of {LARGEST_STRIDE}"
        )
    # Top-k blocks keep a number of places, not a fraction of them, once they are a fixed graph.
    batch = 1 if batch is None and module.hparams.get("topk") is not None else batch
    what = f"takes {batch or 'any number of'} images of "
    what += f"{height} x {width}" if batch else f"any size in steps of {LARGEST_STRIDE}"
    if not batch and (height, width) != (_THEIR_SIZE, _THEIR_SIZE):
        # What the file says of its size they follow for fixed sizes only.
        side = height if height == width else [height, width]
        what += f" (ultralytics predicts at {_THEIR_SIZE} unless given imgsz={side})"
    return f"detector in Ultralytics' layout, {what}", {
        "batch": batch,
        "input_names": ("images",),
        "metadata": ultralytics_metadata(module, (height, width), batch, half, channels),
        "size_step": None if batch else LARGEST_STRIDE,
    }


def load_module(path: Path, module_class: str | None = None) -> L.LightningModule:
    """Load a checkpoint, cut or dense, into the class it was written from.

    Args:
        path: A Lightning checkpoint, or a weight file of a YOLOv8 detector.
        module_class: ``package.module.Class``; None takes the class that the run's `config.yaml`
            names where the checkpoint is in a run's folder, else `DetectionModule`.

    Raises:
        ConfigError: the class cannot be found, or does not fit the file.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    name = module_class or _class_of_run(path)
    kind = None if name is None else _find_class(name)
    try:
        if kind is None:
            return DetectionModule(weights=str(path), **_block_arguments(path)).eval()
        return load_pruned(kind, path).eval()
    except (ValueError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        whose = "another" if module_class is None else "the right"
        raise ConfigError(
            f"{path} cannot be loaded as {name or 'a YOLOv8 detector'}: {_first_line(error)}\n"
            f"For {whose} LightningModule pass its class: --class package.module.Class"
        ) from error


def _block_arguments(path: Path) -> dict[str, Any]:
    """Return how a detector's checkpoint says that its blocks compute: weights do not say."""
    try:
        content = read_checkpoint(path, "cpu")
    except (FileError, ValueError, RuntimeError, TypeError, pickle.UnpicklingError):
        return {}  # weights of others, or what the reader of weights refuses with its reason
    saved = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(saved, dict):
        return {}
    return {key: saved[key] for key in ("reset_blocks", "topk", "threshold") if key in saved}


def example_of(
    module: L.LightningModule, input_shape: list[int] | None, image_size: list[int] | None
) -> Any:
    """Return an example input: of the shape given, or the module's own `example_input_array`.

    Args:
        module: The module.
        input_shape: Shape of one sample, without the batch dimension.
        image_size: Height and width, or one number for both, in place of the last two sizes.

    Raises:
        ConfigError: the module has no example, or the image size has no place in it.
    """
    example: Any = module.example_input_array
    if input_shape is not None:
        example = torch.zeros(1, *input_shape)
    if example is None:
        raise ConfigError(
            f"{type(module).__name__} has no example_input_array: pass the shape of one sample "
            "without the batch, such as --input-shape 3 224 224"
        )
    if image_size is not None:
        if not isinstance(example, Tensor) or example.ndim != 4 or len(image_size) > 2:
            raise ConfigError(
                "--image-size takes one or two numbers for a model of images (B, C, H, W); "
                "pass --input-shape for others"
            )
        example = torch.zeros(*example.shape[:2], image_size[0], image_size[-1])
    return example


def _class_of_run(path: Path) -> str | None:
    """Return the class that the configuration of the checkpoint's run names."""
    config = path.resolve().parent.parent / "config.yaml"
    if path.resolve().parent.name != "checkpoints" or not config.is_file():
        return None
    try:
        model = read_yaml(config)["model"]
        name = str(model["_target_"])
    except (FileError, KeyError, TypeError, OSError):
        return None
    return check_class_of(config, name)


def _find_class(name: str) -> type[L.LightningModule]:
    found = own_class(name)
    if not (isinstance(found, type) and issubclass(found, L.LightningModule)):
        raise ConfigError(f"{name} is no LightningModule class")
    return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
