"""Turn what Hydra says about a command line into one message that lists what is allowed."""

import re
from collections.abc import Iterable

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.cli.config_folder import config_folder
from lightning_prune.cli.errors import ConfigError
from lightning_prune.cli.unknown_key import unknown_key

_OVERRIDE = re.compile(r"^(?:\+\+?|~)?(?P<key>[^=@]+)(?:@[^=]*)?=")


def top_level_keys(groups: Iterable[str] = ()) -> set[str]:
    """Return the keys a command line may begin with: root keys, config groups and `hydra`."""
    folder = config_folder()
    root = OmegaConf.load(folder / "train.yaml")
    names = {path.name for path in folder.iterdir() if any(path.glob("*.yaml"))}
    return ({str(key) for key in root} - {"defaults"}) | names | set(groups) | {"hydra"}


def check_overrides(overrides: Iterable[str], groups: Iterable[str] = ()) -> None:
    """Refuse overrides whose first word is no key of the root config and no config group.

    Hydra takes `+prunning=x` for a new key with the value "x", and a run would train dense.

    Args:
        overrides: the command line without options ("+pruning=x", "model.lr=0.1").
        groups: further config groups that are on the search path.

    Raises:
        ConfigError: naming each unknown key, the nearest known ones and all that are allowed.

    Example:
        >>> check_overrides(["seed=3", "+prunning=x"])
        Traceback (most recent call last):
        lightning_prune.cli.errors.ConfigError: prunning is not known to the command line. Did you
        mean pruning?...
    """
    allowed = top_level_keys(groups)
    problems = []
    for override in overrides:
        match = _OVERRIDE.match(override)
        key = re.split(r"[./]", match["key"])[0] if match else None
        if key and key not in allowed:
            problems.append(unknown_key(key, "the command line", allowed - {"hydra"}))
    if problems:
        raise ConfigError("\n".join(problems))


def with_plus(arguments: Iterable[str]) -> list[str]:
    """Let experiments be chosen as ``experiment=NAME``, as users of Hydra's templates write it.

    They are in no defaults list, as recipes are not: Hydra itself wants ``+experiment=NAME``.

    >>> with_plus(["-m", "experiment=digits_quick", "seed=1,2"])
    ['-m', '+experiment=digits_quick', 'seed=1,2']
    """
    return [f"+{word}" if word.startswith("experiment=") else word for word in arguments]


def composition_message(error: HydraException, overrides: Iterable[str]) -> str:
    """Return one message for a command line that Hydra could not compose."""
    try:
        check_overrides(word for word in overrides if not word.startswith("-"))
    except ConfigError as own:
        return str(own)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        keys = [str(key) for key in cause.parent_node]
        if cause.full_key and str(cause.key) not in keys:
            return unknown_key(cause.full_key, "the configuration", keys)
    # Hydra appends the search path, which says nothing about what to type instead.
    text = str(error).split("Config search path:")[0].strip()
    if isinstance(cause, OmegaConfBaseException):
        text += f"\n{str(cause).splitlines()[0]}"
    launcher = re.search(r"Could not find 'hydra/launcher/(joblib|submitit)", text)
    if launcher:
        text = f"this launcher needs: pip install 'lightning-prune[{launcher[1]}]'\n{text}"
    return re.sub(r"\n\s*\n", "\n", text)
