"""Entry of `python -m lightning_prune` and of the `lightning-prune` script."""

import importlib
import sys

COMMANDS = {
    "analyze": (
        "lightning_prune.cli.analyze",
        "say from which epoch a regularized run can be pruned",
    ),
    "export": ("lightning_prune.cli.export", "write a checkpoint as a checked ONNX file"),
    "layers": ("lightning_prune.cli.layers", "list what of a network can be pruned, in groups"),
    "train": ("lightning_prune.cli.train", "train, prune and test a model from a Hydra config"),
}


def main() -> None:
    """Run the subcommand named by the first argument.

    Options and overrides without a subcommand go to `train`: that is how Lightning starts the
    other processes of a distributed run.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    first = arguments[0]
    if first in COMMANDS:
        arguments = arguments[1:]
    elif "=" in first or first.startswith("-"):
        first = "train"
    else:
        print(f"unknown command '{first}'\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(COMMANDS[first][0]).main(arguments)


def _usage() -> str:
    lines = ["usage: python -m lightning_prune COMMAND ...", "", "commands:"]
    lines += [f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items()]
    lines += ["", "python -m lightning_prune train --help shows the config groups."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
