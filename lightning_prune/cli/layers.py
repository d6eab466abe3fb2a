"""List what of a network can be pruned: `python -m lightning_prune layers`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from torch import nn

from lightning_prune.cli.build import build
from lightning_prune.cli.check import check_config
from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.command_line import split_options, understood
from lightning_prune.cli.composition import composition_message
from lightning_prune.cli.export import load_module
from lightning_prune.cli.layers_parser import layers_parser
from lightning_prune.cli.own_class import own_class
from lightning_prune.cli.quoting import quote
from lightning_prune.cli.training import fill_from_data
from lightning_prune.errors import ConfigError, DataError
from lightning_prune.policies.layers.layer_rule import select_groups
from lightning_prune.report.layer_listing import layer_listing
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.testing import check_prunable


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where it is wrong.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = layers_parser().parse_intermixed_args(argv)
    try:
        model, layers = _model(args)
        layers = args.layers or layers
        example = _example(model, args.input_shape)
        groups = build_groups(model, example, attention=args.attention)
        names = select_groups(layers, model, groups)
        print(layer_listing(model, groups, example, names))
        if args.check or (args.module_class is not None and args.checkpoint is None):
            found = check_prunable(
                model, example, args.ratio, notify=_note, attention=args.attention
            )
            print(f"\n{found}")
    except HydraException as error:
        print(composition_message(error, args.overrides), file=sys.stderr)
        sys.exit(2)
    except (AssertionError, ConfigError, DataError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _note(text: str) -> None:
    """Show progress where somebody looks, and keep it out of what is piped."""
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr)


def _model(args: argparse.Namespace) -> tuple[nn.Module, Any]:
    """Return the network that the command line means, and the layers its recipe prunes."""
    if args.checkpoint is not None:
        if args.overrides:
            raise ConfigError(
                f"{args.overrides[0]} has no place beside --checkpoint, which brings its own "
                "configuration: choose layers with --layers"
            )
        return load_module(checkpoint_argument(args.checkpoint), args.module_class), None
    if args.module_class is not None:
        return _own(args.module_class, args.overrides), None
    return _configured(args.overrides, args.config_dir)


def _example(model: nn.Module, input_shape: list[int] | None) -> Any:
    example = getattr(model, "example_input_array", None)
    if input_shape is not None:
        example = torch.zeros(1, *input_shape)
    if example is None:
        raise ConfigError(
            f"{type(model).__name__} has no example_input_array: pass the shape of one sample "
            "without the batch, such as --input-shape 3 224 224"
        )
    return example


def _own(name: str, words: Sequence[str]) -> nn.Module:
    """Build a network of the user's from KEY=VALUE arguments."""
    arguments = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no argument of {name}: write KEY=VALUE")
        arguments[key] = yaml.safe_load(value)
    build_own = own_class(name)
    try:
        model = build_own(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}; constructor arguments are KEY=VALUE words") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} gives a {type(model).__name__}, no torch.nn.Module")
    return model


def _configured(words: Sequence[str], folder: Path | None) -> tuple[nn.Module, Any]:
    """Build the network that `train` would train, and find the layers it would prune."""
    with _config(words, folder) as cfg:
        check_config(cfg)
        fill_from_data(cfg, build(cfg.data, "data"))
        model: nn.Module = build(cfg.model, "model")
        for name, stage in (cfg.get("pruning") or {}).items():
            layers = None if stage is None else stage.get("layers")
            if layers is not None:
                where = f"pruning.{name}.layers"
                rule = isinstance(layers, DictConfig)
                return model, build(layers, where) if rule else [str(word) for word in layers]
    return model, None


@contextlib.contextmanager
def _config(words: Sequence[str], folder: Path | None) -> Iterator[DictConfig]:
    # First, so that the command line may say otherwise: there is no run to give a folder.
    defaults = ["output_dir=."]
    if folder is not None:
        defaults.append(f"hydra.searchpath=[{quote(f'file://{folder.resolve()}')}]")
    options = [] if folder is None else ["--config-dir", str(folder)]
    _, words = split_options(understood([*options, *words]))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield compose("train", [*defaults, *words])
