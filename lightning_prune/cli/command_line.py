"""Read a command line as people type it, and hand it on as Hydra wants it."""

import re
import sys
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lightning_prune.cli.composition import check_overrides
from lightning_prune.cli.group_words import check_choices, with_plus
from lightning_prune.cli.loader import config_tree, known_paths, make_loader
from lightning_prune.cli.near_keys import key_paths, near_keys
from lightning_prune.cli.quoting import shell_word, understood_word
from lightning_prune.errors import ConfigError
from lightning_prune.runs.say import say

# Options of Hydra that are followed by a value.
_WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun",
}  # fmt: skip
_FLAGS = {
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m",
    "--shell-completion", "-sc", "--info", "-i",
}  # fmt: skip
# Their words are no overrides of a run.
_FOR_HYDRA = {"--shell-completion", "-sc", "--hydra-help", "--experimental-rerun"}
# What may follow --info.
_INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
_OTHER_CONFIG = {"--config-name", "-cn", "--config-path", "-cp"}


def understood(arguments: Sequence[str]) -> list[str]:
    """Return a command line of `train` as Hydra reads it.

    Options may stand anywhere; values with `=`, blanks or brackets are put into quotes;
    ``pruning=NAME`` needs no plus. What was understood once stays as it is.

    Args:
        arguments: The arguments behind the program's name.

    Raises:
        ConfigError: an option, a key or a choice that does not exist, or a word that cannot be
            read, with what is typed instead.
    """
    options, words = split_options(arguments)
    names = {option.partition("=")[0] for option in options}
    if names & _FOR_HYDRA:
        return list(arguments)
    sweep = bool(names & {"-m", "--multirun"}) or "hydra.mode=MULTIRUN" in words
    words = [_told(word, understood_word(word, sweep)) for word in words]
    loader = make_loader(config_dir(options))
    check_choices(words, loader)
    if names & _OTHER_CONFIG:  # what it holds is not ours to judge
        return [*options, *words]
    check_overrides(words, loader.list_groups(""), lambda known: known_paths(loader, known))
    return [*options, *_without_plus(with_plus(words, loader), loader)]


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's options, with their values behind them, and the other words.

    Raises:
        ConfigError: an option that there is not: settings have no dashes.

    Example:
        >>> split_options(["seed=1", "-m", "--config-dir", "mine", "data=digits"])
        (['-m', '--config-dir', 'mine'], ['seed=1', 'data=digits'])
    """
    options: list[str] = []
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, _ = word.partition("=")
        if not _is_option(name):
            raise ConfigError(_no_option(word, rest))
        options.append(word)
        follows = not equals and rest and (name in _WITH_VALUE or _is_info(name, rest[0]))
        if follows:
            options.append(rest.pop(0))
    return options, words


def config_dir(options: Sequence[str]) -> str | None:
    """Return the folder that is given as ``--config-dir FOLDER`` or ``--config-dir=FOLDER``."""
    found = None
    for option, value in zip(options, [*options, ""][1:], strict=True):
        name, equals, inner = option.partition("=")
        if name in ("--config-dir", "-cd"):
            found = inner if equals else value
    return found


def _told(typed: str, word: str) -> str:
    """Return how a word is read that Hydra's grammar would have refused."""
    if word.count("'") > typed.count("'") and len(word) < 1000:
        say(f"{typed} is read with quotes: {shell_word(word)}", sys.stderr)
    return word


def _without_plus(words: list[str], loader: ConfigLoaderImpl) -> list[str]:
    """Remove the plus from keys that are there already, which Hydra refuses."""
    added = [word for word in words if re.match(r"\+[^+=]+=", word)]
    keys = {word: word[1:].partition("=")[0] for word in added}
    groups = {word for word, key in keys.items() if loader.get_group_options(key.split("@")[0])}
    plain = [word for word in added if word not in groups]
    if not plain:
        return words
    known = set(key_paths(config_tree(loader, [word for word in words if word not in plain])))
    return [word[1:] if word in plain and keys[word] in known else word for word in words]


def _is_option(name: str) -> bool:
    known = _WITH_VALUE | _FLAGS
    # The parser of Hydra takes the beginning of a long one too.
    return name in known or (len(name) > 3 and any(one.startswith(name) for one in known))


def _is_info(name: str, word: str) -> bool:
    return name in ("--info", "-i") and word in _INFO


def _no_option(word: str, rest: Sequence[str]) -> str:
    name, equals, value = word.partition("=")
    if not equals:
        value = rest[0] if rest and "=" not in rest[0] and not rest[0].startswith("-") else "VALUE"
    near = near_keys(name, known_paths(make_loader(), [one for one in rest if "=" in one]))
    ways = " or ".join(f"{key}={value}" for key in near) or "KEY=VALUE, such as dense_epochs=3"
    return f"{name} is no option: settings are typed without dashes, {ways}"
