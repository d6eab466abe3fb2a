"""Entry of `python -m lightning_prune` and of the `lightning-prune` script."""

import importlib
import importlib.util
import sys

from lightning_prune.cli.plain_ending import plain_ending
from lightning_prune.extras import missing_extra

COMMANDS = {
    "analyze": (
        "lightning_prune.cli.analyze",
        "say from which epoch a regularized run can be pruned",
    ),
    "benchmark": (
        "lightning_prune.cli.benchmark",
        "time networks in the runtimes that are installed",
    ),
    "compare": ("lightning_prune.cli.compare", "put runs side by side, in a table and on a page"),
    "compress": (
        "lightning_prune.cli.compress",
        "make a trained detector smaller with nothing but pictures",
    ),
    "export": (
        "lightning_prune.cli.export",
        "write a checkpoint as a checked file for another runtime",
    ),
    "latency": (
        "lightning_prune.cli.latency",
        "time a network at many widths, for pruning to a latency_target",
    ),
    "layers": ("lightning_prune.cli.layers", "list what of a network can be pruned, in groups"),
    "predict": (
        "lightning_prune.cli.predict",
        "detect objects on images and videos, and draw them",
    ),
    "report": ("lightning_prune.cli.report", "show a run: its tables, and its page drawn again"),
    "train": ("lightning_prune.cli.train", "train, prune and test a model from a Hydra config"),
    "why": ("lightning_prune.cli.why", "say why a channel stayed or was cut, and how sure that is"),
}


def main() -> None:
    """Run the subcommand named by the first argument.

    Options and overrides without a subcommand go to `train`: that is how Lightning starts the
    other processes of a distributed run.
    """
    with plain_ending():
        _run(sys.argv[1:])


def _run(arguments: list[str]) -> None:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        print(_usage())
    elif "--version" in arguments or first in ("-V", "version"):
        print(importlib.import_module("lightning_prune.cli.versions").versions())
    elif first in COMMANDS:
        module, rest = COMMANDS[first][0], arguments[1:]
        # The parsers have modules of their own: what trains takes seconds to import.
        light = f"{module}_parser"
        if {"-h", "--help"} & set(rest) and importlib.util.find_spec(light):
            getattr(importlib.import_module(light), f"{first}_parser")().parse_args(["--help"])
        _start(module, rest)
    elif "=" in first or first.startswith(("-", "~")):
        _start(COMMANDS["train"][0], arguments)
    else:
        near = importlib.import_module("difflib").get_close_matches(first, COMMANDS, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        print(f"unknown command '{first}'{hint}\n{_usage()}", file=sys.stderr)
        sys.exit(2)


def _start(module: str, arguments: list[str]) -> None:
    try:
        importlib.import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, module.rpartition(".")[2], "cli")
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(2)


def _usage() -> str:
    lines = ["usage: python -m lightning_prune COMMAND ...", "", "commands:"]
    width = max(map(len, COMMANDS)) + 1
    lines += [f"  {name:<{width}} {what}" for name, (_, what) in COMMANDS.items()]
    lines += [
        "",
        "python -m lightning_prune COMMAND --help shows arguments; of train, the config groups.",
        "python -m lightning_prune --version shows what is installed.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
