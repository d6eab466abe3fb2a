"""Say from which epoch of a regularization run to prune: `python -m lightning_prune analyze`."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from lightning_prune.cli.analyze_parser import THRESHOLD, WANTED, analyze_parser
from lightning_prune.cli.build import build
from lightning_prune.cli.export import example_of, load_module
from lightning_prune.cli.read_norms import read_norms
from lightning_prune.cli.run_checkpoints import checkpoint_files, run_checkpoints
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.errors import ConfigError
from lightning_prune.files.write_json import write_json
from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.layers.layer_rule import select_groups
from lightning_prune.report.figures import file_name, write_figure
from lightning_prune.report.norm_analysis import norm_analysis
from lightning_prune.report.norm_comparison import norm_comparison
from lightning_prune.report.norm_figure import norm_figure
from lightning_prune.report.norm_history import NormHistory
from lightning_prune.report.norm_overview import norm_overview
from lightning_prune.report.norm_table import print_comparison, print_norms
from lightning_prune.runs.configuration.consent import check_targets_of
from lightning_prune.runs.configuration.run_facts import RunFacts
from lightning_prune.surgery.build_groups import build_groups


class Analysis(NamedTuple):
    """One run: where it lies, its norms, and what `analysis.json` says."""

    folder: Path
    history: NormHistory
    content: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where there is nothing to analyze.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = analyze_parser().parse_args(argv)
    try:
        runs = run_folders(args.folder)
        if len(runs) == 1:
            _one(analyze_run(runs[0], args), args)
        else:
            _several(runs, args)
    except (ConfigError, FileNotFoundError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def run_folders(folder: Path) -> list[Path]:
    """Return the folder itself where it holds checkpoints, else its subfolders that do.

    Raises:
        ConfigError: there is no such folder, or no checkpoint in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give the folder of a run, such as outputs/...")
    if checkpoint_files(folder):
        return [folder]
    runs = [path for path in folder.iterdir() if path.is_dir() and checkpoint_files(path)]
    if not runs:
        raise ConfigError(
            f"no *.ckpt in {folder} or {folder / 'checkpoints'}: give the folder of a run; "
            "callbacks=every_epoch keeps a checkpoint of each epoch"
        )
    return sorted(runs, key=lambda path: (not path.name.isdigit(), path.name.zfill(9)))


def analyze_run(folder: Path, args: argparse.Namespace) -> Analysis:
    """Measure the channels in every checkpoint of a run.

    Args:
        folder: The run's folder.
        args: The command line: `threshold`, `wanted`, `layers`, `module_class`, `input_shape`.

    Raises:
        ConfigError: fewer than two epochs can be read, or the module cannot be built.
        ValueError: a value is out of range, an unknown layer.
    """
    facts = RunFacts.of(folder)
    threshold = _or(args.threshold, facts.get("pruning.regularizer.threshold"), THRESHOLD)
    wanted = _or(args.wanted, _share_for(facts.get("pruning.masker.mac_target")), WANTED)
    checkpoints, skipped = run_checkpoints(checkpoint_files(folder))
    if not checkpoints:
        raise ConfigError("\n".join([f"no usable checkpoint in {folder}", *_lines(skipped)]))
    module = load_module(checkpoints[0].path, args.module_class)
    example = example_of(module, args.input_shape, None)
    groups = build_groups(module, example)
    names = select_groups(_layers(facts, args.layers), module, groups)
    macs = MacModel.of(module, groups, example)
    history, used, more = read_norms(module, groups, names, checkpoints)
    skipped |= more
    if history is None or len(history) < 2:
        only = "; ".join(f"epoch {one.epoch + 1}: {one.path.name}" for one in used) or "none"
        raise ConfigError(
            "\n".join(
                [
                    f"{folder} has checkpoints of {len(used)} epoch ({only}): at least 2 are "
                    "needed; callbacks=every_epoch keeps a checkpoint of each epoch",
                    *_lines(skipped),
                ]
            )
        )
    content = norm_analysis(history, threshold, wanted, macs)
    metric = facts.get("monitor")
    known = facts.metric(metric) if metric else {}
    for row, one in zip(content["epochs"], used, strict=True):
        row |= {"metric": known.get(one.epoch), "file": str(one.path), "also": list(one.also)}
    content |= {"metric": metric if known else None, "skipped": skipped}
    content["command"] = _command(content, facts, isinstance(module, DetectorModule))
    return Analysis(folder, history, content)


def write_analysis(run: Analysis, folder: Path, figures: bool) -> None:
    """Write `analysis.json` and, if wanted, `figures/overview.png` and one picture per group."""
    write_json(folder / "analysis.json", run.content)
    if not figures:
        return
    history, content = run.history, run.content
    overview = norm_overview(history, content, str(run.folder), content["metric"])
    write_figure(folder / "figures" / "overview.png", overview)
    for name, norms in history.norms.items():
        figure = norm_figure(norms, history.epochs, content["threshold"], name)
        write_figure(folder / "figures" / file_name(name), figure)


def _one(run: Analysis, args: argparse.Namespace) -> None:
    output = args.output or run.folder / "analysis"
    _warn(run)
    print_norms(run.content)
    write_analysis(run, output, not args.no_figures)
    print(f"\neverything is in {output}")


def _several(runs: Sequence[Path], args: argparse.Namespace) -> None:
    """Analyze each run of a sweep, and put them side by side."""
    if args.output is not None:
        raise ConfigError("--output is for one run: each of several has a folder of its own")
    done: list[Analysis] = []
    for folder in runs:
        try:
            run = analyze_run(folder, args)
        except (ConfigError, FileNotFoundError, ValueError, OSError) as error:
            _tell(f"{folder} is left out: {error}")
            continue
        _warn(run)
        write_analysis(run, folder / "analysis", not args.no_figures)
        done.append(run)
    if not done:
        raise ConfigError(f"none of the {len(runs)} runs in {args.folder} can be analyzed")
    facts = [RunFacts.of(run.folder).overrides for run in done]
    common = set(facts[0]).intersection(*facts[1:])
    labels = [
        " ".join([run.folder.name, *(word for word in words if word not in common)])
        for run, words in zip(done, facts, strict=True)
    ]
    contents = [run.content for run in done]
    output = args.folder / "analysis"
    write_json(output / "analysis.json", {"runs": dict(zip(labels, contents, strict=True))})
    if not args.no_figures:
        write_figure(output / "comparison.png", norm_comparison(labels, contents))
    print_comparison(labels, contents)
    print(f"\neverything is in {output} and in analysis/ of each run")


def _command(content: dict[str, Any], facts: RunFacts, detector: bool) -> str | None:
    """Return what starts the pruning phase from the first epoch that has enough low channels."""
    start = content["start"]
    if start is None:
        return None
    file = next(row["file"] for row in content["epochs"] if row["epoch"] == start)
    file = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    if not detector:
        return f"load_pruned(YourModule, {file!r}), then fit with ChannelMasker and PhysicalPruner"
    words = ["python", "train.py", "+pruning=channel", f"model.weights={_hydra_word(file)}"]
    strength = facts.get("pruning.regularizer.reg")
    words += [] if strength is None else [f"pruning.regularizer.reg={strength}"]
    return shlex.join([*words, *facts.lasting_overrides])


def _hydra_word(text: str) -> str:
    """Quote a value for Hydra, to which `=`, commas and spaces have a meaning."""
    if re.fullmatch(r"[\w./:@%+-]+", text):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def _layers(facts: RunFacts, given: list[str] | None) -> Any:
    """Return the choice of layers: the one given, else that of the run's regularizer."""
    layers = facts.get("pruning.regularizer.layers")
    if given is not None or not isinstance(layers, dict):
        return layers if given is None else given
    check_targets_of(facts.folder / "config.yaml", layers)
    return build(OmegaConf.create(layers), "pruning.regularizer.layers")


def _share_for(mac_target: float | None) -> float | None:
    """Return the fraction of channels that meets a MAC target when all layers shrink alike."""
    return None if mac_target is None else round(1 - mac_target**0.5, 2)


def _or(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _lines(skipped: dict[str, str]) -> list[str]:
    return [f"  {name} is left out: {reason}" for name, reason in skipped.items()]


def _warn(run: Analysis) -> None:
    for line in _lines(run.content["skipped"]):
        _tell(f"{run.folder}: {line.strip()}")


def _tell(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
