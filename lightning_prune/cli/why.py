"""Say why a channel stayed or was cut: `python -m lightning_prune why`."""

import difflib
import sys
from collections.abc import Iterable, Sequence

from tqdm.auto import tqdm

from lightning_prune.cli.report import run_folder
from lightning_prune.cli.why_parser import why_parser
from lightning_prune.errors import ConfigError
from lightning_prune.report.report_data import FILE, ReportData, read_report
from lightning_prune.report.stored_decision import FOLDER, read_decision
from lightning_prune.report.why import why


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 2 and one message where there is nothing to say.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.
    """
    args = why_parser().parse_args(argv)
    try:
        if args.draws < 0:
            raise ValueError(f"--draws {args.draws}: pass at least 0")
        layer, _, number = args.channel.rpartition(".")
        if not layer or not number.isdecimal():
            raise ValueError(
                f"{args.channel}: pass a layer and the place of a channel, such as "
                "backbone.p1.conv.12"
            )
        folder = run_folder(args.folder)
        if not (folder / FILE).is_file():
            raise ConfigError(f"{folder} has no {FILE}: pass the folder of a run that pruned")
        group = _group(read_report(folder / FILE), layer)
        stored = read_decision(folder, group)
        if stored is None:
            raise ConfigError(
                f"nothing is stored of {group}: {folder / FOLDER} is of runs that began with this "
                "release, on rank 0"
            )
        found = why(stored, int(number), args.draws, args.seed, _bar)
    except (ConfigError, OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\n".join(found.lines))


def _bar(items: Sequence[int]) -> Iterable[int]:
    shown: Iterable[int] = tqdm(
        items, "Choosing again", leave=False, disable=not sys.stderr.isatty()
    )
    return shown


def _group(report: ReportData, layer: str) -> str:
    """Return the group of a layer, by its name, its end or the group's."""
    exact = [row for row in report.layers if layer in (row.name, row.group)]
    ends = [row for row in report.layers if row.name.endswith(f".{layer}")]
    groups = list(dict.fromkeys(row.group for row in exact or ends))
    if len(groups) == 1:
        return groups[0]
    names = [row.name for row in report.layers]
    if groups:
        raise ConfigError(f"{layer} is the end of several layers: {', '.join(groups[:3])}, ...")
    near = difflib.get_close_matches(layer, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"the run pruned no layer {layer}{hint}")
