"""Turn `resume=RUN_FOLDER` into the command line of that run."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.errors import ConfigError
from lightning_prune.files.read_json import read_json
from lightning_prune.runs.configuration.consent import check_consent
from lightning_prune.runs.configuration.renamed_keys import translated_words
from lightning_prune.runs.configuration.run_facts import config_of
from lightning_prune.runs.resume.run_command import COMMAND, PLACE, RunCommand
from lightning_prune.runs.run_result import RESULT

NEVER = "never"
_WORD = re.compile(r"^(?P<sign>\+\+?|~)?(?P<key>[^=@]+)(?:@[^=]*)?(?:=(?P<value>.*))?$", re.DOTALL)


def resume_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line that continues in the folder that `resume=FOLDER` names.

    It consists of the overrides of that run and those given beside `resume`, which win. A command
    line without `resume`, or with `resume=never`, stays as it is. `trust=true` beside it consents
    to a command that was recorded elsewhere.

    Args:
        arguments: The arguments behind the program's name.

    Raises:
        ConfigError: the folder is no run, another argument contradicts `resume`, or consent is
            needed.
    """
    values = [word.partition("=")[2] for word in arguments if _key(word) == "resume"]
    value = values[-1].strip("'\"") if values else NEVER
    if value in (NEVER, "null", "") or any(_key(word) == "hydra.run.dir" for word in arguments):
        # The other processes of a run on several devices get the whole command line.
        return list(arguments)
    if any(word in ("-m", "--multirun") for word in arguments):
        raise ConfigError(
            f"resume={value} continues one run: a sweep continues where its own command is given "
            "again, without resume"
        )
    given = [word for word in arguments if _key(word) not in ("resume", "trust")]
    if any(_key(word) == "ckpt_path" for word in given):
        raise ConfigError(
            "resume and ckpt_path contradict each other: resume=FOLDER finds the newest "
            "checkpoint of a run by itself, ckpt_path=FILE starts a new run from a file"
        )
    folder = Path(value).expanduser().absolute()
    command = _command(folder)
    command = replace(command, task=translated_words(command.task, config_of(folder)))
    check_consent(folder, command, _trusted(arguments))
    own = _own_words(command)
    words = _merge(own, given)
    # An experiment may be a sweep by itself; this is one of its runs.
    place = ["hydra.mode=RUN", f"hydra.run.dir={quote(folder)}", f"resume={quote(folder)}"]
    return [*_options(command, arguments), *words, *place]


def resumed_folder(arguments: Sequence[str]) -> Path | None:
    """Return the folder that a command line of ``resume_arguments`` continues in, if any."""
    values = [word.partition("=")[2] for word in arguments if _key(word) == "resume"]
    value = values[-1].strip("'\"").replace("\\'", "'") if values else NEVER
    return None if value in (NEVER, "null", "") else Path(value)


def resume_command(folder: Path) -> str:
    """Return what to type to continue with the run in a folder."""
    program = "-m lightning_prune train" if "__main__" in sys.argv[0] else shlex.quote(sys.argv[0])
    return f"python {program} {shlex.quote(f'resume={os.path.relpath(folder)}')}"


def finished_result(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the result of the run that `resume=FOLDER` names, if nothing is left to be done.

    Further overrides ask for more than the run did: then there is something left.
    """
    words = [word for word in arguments if _key(word) not in (None, "trust")]
    if len(words) != 1 or _key(words[0]) != "resume":
        return None
    folder = Path(words[0].partition("=")[2].strip("'\"")).expanduser()
    return read_json(folder / RESULT)


def quote(path: Path) -> str:
    r"""Return a path as a value in Hydra's grammar, whatever characters it has.

    >>> quote(Path("/runs/it's lr=0.1"))
    "'/runs/it\\'s lr=0.1'"
    """
    return "'" + str(path).replace("'", "\\'") + "'"


def _command(folder: Path) -> RunCommand:
    """Return the command with which the run in a folder was started."""
    command = RunCommand.read(folder)
    if command is None:
        sweep = any(folder.glob(f"*/{COMMAND}")) or any(folder.glob("*/.hydra"))
        way = (
            "it is a sweep: give the sweep's own command again, or the folder of one of its runs"
            if sweep
            else "give the folder that has .hydra, config.yaml and checkpoints/ in it"
        )
        raise ConfigError(f"resume={folder} is no folder of a run: {way}")
    return command


def _own_words(command: RunCommand) -> list[str]:
    """Return its overrides."""
    # Files of earlier versions have these words too.
    kept = [word for word in command.hydra if not PLACE.match(word)]
    return [*kept, *(word for word in command.task if _key(word) not in ("resume", "trust"))]


def _trusted(arguments: Sequence[str]) -> bool:
    values = [word.partition("=")[2] for word in arguments if _key(word) == "trust"]
    if values and values[-1].lower() not in ("true", "false"):
        raise ConfigError(f"trust={values[-1]} is not allowed: give true or false")
    return bool(values) and values[-1].lower() == "true"


def _merge(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return both; of words for the same key those that were given."""
    signs = {_key(word): _sign(word) for word in own}
    keys = {_key(word) for word in given} - {None}
    words = [word for word in own if _key(word) not in keys]
    for word in given:
        known = signs.get(_key(word))
        if known and _sign(word) == "~":
            continue  # deleting what is not added any more
        words.append(f"{known}{word}" if known and not _sign(word) else word)
    return words


def _options(command: RunCommand, arguments: Sequence[str]) -> list[str]:
    """Return `--config-dir` of the run, if it had one and no other was given."""
    if any(word.startswith(("--config-dir", "-cd")) for word in arguments):
        return []
    if Path(command.cwd) != Path.cwd():
        _say(f"the run was started in {command.cwd}: relative paths now begin at {Path.cwd()}")
    return ["--config-dir", command.config_dir] if command.config_dir else []


def _key(word: str) -> str | None:
    """Return the key of an override; None for options and their values."""
    found = None if word.startswith("-") else _WORD.match(word)
    return found["key"] if found and (found["value"] is not None or found["sign"]) else None


def _sign(word: str) -> str:
    found = _WORD.match(word)
    return (found["sign"] or "") if found else ""


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
