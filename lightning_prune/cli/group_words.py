"""Check the choices of config groups, and put the plus where Hydra wants one."""

import re
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.types import RunMode

from lightning_prune.cli.loader import COMPOSITION_ERRORS
from lightning_prune.cli.plugin_sentence import plugin_sentence
from lightning_prune.cli.quoting import parse, quote, shell_word
from lightning_prune.cli.unknown_key import near_names
from lightning_prune.errors import ConfigError

# In no defaults list: without one of them a run is dense.
ADDED = ("pruning", "experiment", "switch", "target")
_NOTHING = ("none", "null")
_NO_MATCH = re.compile(r"Could not override '([^']+)'\. No match in the defaults list")
_DOUBLE = re.compile(r"Multiple values for (\S+)\. To override")


def check_choices(words: Sequence[str], loader: ConfigLoaderImpl) -> None:
    """Refuse what is no choice of a config group, such as ``callbacks=true``.

    Args:
        words: Overrides that Hydra can parse.
        loader: It knows the groups.

    Raises:
        ConfigError: with a sentence for each such override and the group's choices.
    """
    problems = [text for word in words if (text := _choice_problem(parse(word), loader))]
    if problems:
        raise ConfigError("\n".join(problems))


def with_plus(words: Sequence[str], loader: ConfigLoaderImpl) -> list[str]:
    """Allow a group to be chosen as ``pruning=NAME``, whether or not Hydra's defaults have it.

    Hydra wants ``+pruning=NAME`` for a group that is not in the list, and refuses the plus for one
    that is: with an experiment that brings a recipe, ``pruning=NAME`` replaces it.

    Args:
        words: Overrides that Hydra can parse.
        loader: It knows the defaults lists.
    """
    nothing = {f"{sign}{group}={no}" for sign in ("", "+") for group in ADDED for no in _NOTHING}
    others = _placed([word for word in words if word not in nothing], loader)
    wishes = {f"~{word.strip('+').partition('=')[0]}" for word in words if word in nothing}
    # pruning=none is the wish for no recipe, also for one that an experiment brings.
    return [
        *others,
        *(wish for wish in sorted(wishes) if _refusal([*others, wish], loader) is None),
    ]


def _placed(words: list[str], loader: ConfigLoaderImpl) -> list[str]:
    for _ in range(len(words)):
        changed = _changed(words, _refusal(words, loader) or "")
        if changed == words:
            break
        words = changed
    return words


def _refusal(words: Sequence[str], loader: ConfigLoaderImpl) -> str | None:
    """Return what Hydra says against the choices of groups; None: nothing."""
    try:
        chosen = [word for one in words if (word := _one_choice(one, loader))]
        loader.compute_defaults_list("train", chosen, RunMode.MULTIRUN)
    except ConfigError:
        raise
    except COMPOSITION_ERRORS as error:
        return str(error)
    return None


def _changed(words: list[str], message: str) -> list[str]:
    missing, double = _NO_MATCH.search(message), _DOUBLE.search(message)
    if missing and missing[1].partition("@")[0] in ADDED:
        return [f"+{word}" if word.startswith(f"{missing[1]}=") else word for word in words]
    if double:
        return [word[1:] if word.startswith(f"+{double[1]}=") else word for word in words]
    return words


def _one_choice(word: str, loader: ConfigLoaderImpl) -> str | None:
    """Return an override of a group with the first of its values; None: it is none."""
    override = parse(word)
    if not loader.get_group_options(override.key_or_group):
        return word if word.startswith(("hydra.searchpath=", "+hydra.searchpath=")) else None
    values = _values(override)
    if override.is_delete() or not values:
        return word
    key, _, _ = word.partition("=")
    return f"{key}={quote(values[0])}" if isinstance(values[0], str) else word


def _values(override: Override) -> list[Any]:
    """Return the values that an override gives, one by one; of lists their items."""
    value = override.value()
    given = value.list if isinstance(value, ChoiceSweep) else [value]
    plain = [getattr(item, "text", item) for item in given]  # quoted texts are objects of Hydra's
    return [part for item in plain for part in (item if isinstance(item, list) else [item])]


def _choice_problem(override: Override, loader: ConfigLoaderImpl) -> str | None:
    group = override.key_or_group
    options = loader.get_group_options(group)
    if not options or override.is_delete():
        return None
    for value in _values(override):
        # A mapping is merged into what is chosen; a reference is followed later.
        if isinstance(value, dict) or (isinstance(value, str) and "${" in value):
            continue
        if isinstance(value, str) and loader.repository.config_exists(f"{group}/{value}"):
            loader.repository.load_config(f"{group}/{value}")  # refuses what cannot be read
            continue
        if value in (None, "none") and group in ADDED and len(_values(override)) == 1:
            continue
        given = override.input_line
        if group in ("hydra/launcher", "hydra/sweeper") and isinstance(value, str):
            plugin = plugin_sentence(group.partition("/")[2], value)
            if plugin is not None:
                return f"{shell_word(str(given))}: {plugin}"
        near = near_names(str(value), options)
        hint = f" Did you mean {' or '.join(f'{group}={name}' for name in near)}?" if near else ""
        return (
            f"{shell_word(str(given))} is not allowed: '{group}' is chosen by name.{hint} "
            f"Allowed: {', '.join(options)}"
        )
    return None
