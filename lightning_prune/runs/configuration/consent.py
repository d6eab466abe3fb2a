"""What a run's folder from elsewhere may ask for without its user's consent."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.configuration.folder_seal import is_sealed
from lightning_prune.runs.configuration.shipped_class import foreign_targets, is_shipped_class
from lightning_prune.runs.resume.run_command import COMMAND, PLACE, RunCommand
from lightning_prune.runs.say import say

# Resolvers that look at nothing outside the configuration.
_HARMLESS = re.compile(r"\$\{(add|part|hydra|oc\.select):")
# The parts of Hydra's own settings in which classes, functions or modules are named.
_CALLED_BY_HYDRA = ("callbacks", "launcher", "job_logging", "hydra_logging", "searchpath")
_HYDRA = re.compile(r"^[+~]*hydra([./@=]|$)")


def check_consent(folder: Path, command: RunCommand, trusted: bool) -> None:
    """Refuse a command that came with a folder and asks for more than the shipped classes.

    A folder is a program: its command names classes, and Hydra calls whatever is named. The command
    of a folder that this user recorded (see ``folder_seal``) is as good as typed. Of any other,
    only classes of the shipped packages pass, of the kinds that recipes name.

    Args:
        folder: Of the run.
        command: What the folder says.
        trusted: Whether the user said ``trust=true``.

    Raises:
        ConfigError: consent is needed; nothing was imported, built or called.
    """
    if is_sealed(folder / COMMAND):
        return
    words = [*_used(command), *command.task]
    say(
        f"{folder} was recorded elsewhere, with this command: {' '.join(words) or '(no overrides)'}"
    )
    if trusted:
        return
    problems = list(_problems(command))
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ConfigError(
            f"resume={folder}: you did not record {COMMAND} on this machine, and it asks for what "
            f"could run code of whoever did:\n{lines}\n"
            "Nothing was run. Look at it; if you trust the folder, add trust=true (once: from then "
            "on it counts as yours)"
        )


def check_class_of(config: Path, name: str) -> str:
    """Return the class that the `config.yaml` of a run names.

    Raises:
        ConfigError: this user did not write the file, and it is none of the shipped classes.
    """
    if is_sealed(config) or is_shipped_class(name):
        return name
    raise ConfigError(
        f"{config} names the class {name}, and you did not write it on this machine: importing the "
        f"class runs its code. If you trust it, pass --class {name}"
    )


def check_targets_of(config: Path, node: object) -> None:
    """Refuse to build a part of the `config.yaml` of a run from elsewhere.

    Raises:
        ConfigError: this user did not write the file, and the part names no shipped class.
    """
    named = [] if is_sealed(config) else [str(name) for _, name in foreign_targets(node)]
    if named:
        raise ConfigError(
            f"{config} names {', '.join(named)}, which could run code of whoever wrote it, and you "
            "did not write it on this machine: pass what is needed of it on the command line"
        )


def _problems(command: RunCommand) -> Iterator[str]:
    if command.config_dir is not None:
        yield f"--config-dir {command.config_dir}: configurations from there"
    own = [word for word in command.task if _HYDRA.match(word)]
    for word in [*_used(command), *own]:
        yield f"{word}: a setting of Hydra itself"
    for word in command.task:
        rest = _HARMLESS.sub("", word)
        if "${" in word and ":" in rest[rest.find("${") :] and rest.find("${") >= 0:
            yield f"{word}: calls a resolver, which may look into this machine"
    if command.config_dir is not None or own:
        return
    config = _compose(command.task)
    settings, usual = config.pop("hydra"), _compose([])["hydra"]
    for name in _CALLED_BY_HYDRA:
        if settings[name] != usual[name]:
            yield f"hydra.{name}: a setting of Hydra itself"
    for name, key in (("sweeper", "_target_"), ("job", "env_set")):
        if settings[name].get(key) != usual[name].get(key):
            yield f"hydra.{name}.{key}: a setting of Hydra itself"
    for place, target in foreign_targets(config):
        yield f"{place}={target}: no class of the shipped packages that recipes name"


def _used(command: RunCommand) -> list[str]:
    """Return the settings of Hydra that a resumed run gets: not those that say where it is."""
    return [word for word in command.hydra if not PLACE.match(word)]


def _compose(words: list[str]) -> dict[str, Any]:
    """Return the configuration that overrides lead to, unresolved; nothing of it is called."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = hydra.compose("train", words, return_hydra_config=True)
            plain: Any = OmegaConf.to_container(config, resolve=False)
            return dict(plain)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        text = str(error).split("Config search path:")[0].strip()
        raise ConfigError(f"the folder's command cannot be composed: {text}") from error
