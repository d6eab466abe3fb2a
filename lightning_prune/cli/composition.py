"""Turn what Hydra says about a command line into one message that lists what is allowed."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.cli.loader import known_paths, make_loader, option_paths
from lightning_prune.cli.near_keys import near_keys
from lightning_prune.cli.plugin_sentence import plugin_sentence
from lightning_prune.cli.quoting import quote, shell_word
from lightning_prune.cli.unknown_key import near_names, unknown_key
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.configuration.renamed_keys import renamed_sentence

_OVERRIDE = re.compile(r"^(?:\+\+?|~)?(?P<key>[^=@]+)(?:@[^=]*)?=")


def top_level_keys(groups: Iterable[str] = ()) -> set[str]:
    """Return the keys a command line may begin with: root keys, config groups and `hydra`."""
    folder = config_folder()
    root = OmegaConf.load(folder / "train.yaml")
    names = {path.name for path in folder.iterdir() if any(path.glob("*.yaml"))}
    return ({str(key) for key in root} - {"defaults"}) | names | set(groups) | {"hydra"}


def check_overrides(
    overrides: Iterable[str],
    groups: Iterable[str] = (),
    paths: Callable[[list[str]], Sequence[str]] = lambda words: (),
) -> None:
    """Refuse overrides whose first word is no key of the root config and no config group.

    Hydra takes `+prunning=x` for a new key with the value "x", and a run would train dense.

    Args:
        overrides: The command line without options ("+pruning=x", "model.lr=0.1").
        groups: Further config groups that are on the search path.
        paths: Returns the full paths of all keys that a configuration with the known ones of the
            overrides has; asked only where something is unknown.

    Raises:
        ConfigError: naming each unknown key, the nearest known ones and all that are allowed.

    Example:
        >>> check_overrides(["seed=3", "+prunning=x"])
        Traceback (most recent call last):
        lightning_prune.errors.ConfigError: prunning is not known to the command line. Did you
        mean pruning?...
    """
    allowed = top_level_keys(groups)
    firsts = {override: _first_key(override) for override in overrides}
    unknown = [word for word, key in firsts.items() if key and key not in allowed]
    if unknown:
        known = paths([word for word in firsts if word not in unknown])
        allowed -= {"hydra"}
        raise ConfigError("\n".join(_unknown_word(word, allowed, known) for word in unknown))


def _first_key(override: str) -> str | None:
    match = _OVERRIDE.match(override)
    return re.split(r"[./]", match["key"])[0] if match else None


def composition_message(error: BaseException, overrides: Sequence[str]) -> str:
    """Return one message for a command line that Hydra could not compose.

    Args:
        error: What Hydra, OmegaConf or the reader of YAML raised.
        overrides: The command line; options in it are left aside.
    """
    words = [word for word in overrides if not word.startswith("-")]
    text = str(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        keys = [str(key) for key in cause.parent_node]
        if cause.full_key and str(cause.key) not in keys:
            return _unknown_path(str(cause.full_key), keys, words, cause.parent_node)
    for pattern, sentence in _SENTENCES:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return sentence(*found.groups())
    # Hydra appends the search path, which says nothing about what to type instead.
    text = text.split("Config search path:")[0].strip() or type(error).__name__
    if isinstance(cause, OmegaConfBaseException):
        text += f"\n{str(cause).splitlines()[0]}"
    launcher = re.search(r"Could not find 'hydra/(launcher|sweeper)/(joblib|submitit|\w+)", text)
    if launcher:
        needed = plugin_sentence(launcher[1], launcher[2])
        other = f"this {launcher[1]} needs a plugin of Hydra, such as: pip install "
        text = f"{needed or f'{other}hydra-{launcher[2]}-{launcher[1]}'}\n{text}"
    return _plain(text)


def _plain(text: str) -> str:
    """Return a message without what OmegaConf says for its own developers."""
    place = re.search(r"^\s*full_key: (.*)$", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line.strip()]
    kept = [
        line for line in lines if not re.match(r"\s*(full_key:|object_type=|reference_type=)", line)
    ]
    return "\n".join([f"{place[1]}: {kept[0]}" if place and place[1] else kept[0], *kept[1:]])


def _several_values(word: str) -> str:
    key, _, value = word.partition("=")
    return (
        f"{shell_word(word)} has several values: add -m to run each, or type "
        f"{shell_word(f'{key}=[{value}]')} for a list, {shell_word(f'{key}={quote(value)}')} for "
        "one text with commas"
    )


def _plus_too_much(key: str) -> str:
    return f"+{key} is in the configuration already: type {key}=VALUE, without the plus"


# What Hydra says of a command line, and how it is said here.
_SENTENCES: list[tuple[str, Callable[..., str]]] = [
    (r"Ambiguous value for argument '(.*?)'\n", _several_values),
    (r"Could not append to config\. An item is already at '([^']+)'", _plus_too_much),
]


def _unknown_path(key: str, siblings: Sequence[str], words: Sequence[str], node: DictConfig) -> str:
    """Return the sentence for a key that its place does not have."""
    name = key.rpartition(".")[2]
    typed = next((word for word in words if word.partition("=")[0] == key), None)
    renamed = renamed_sentence(key, node.get("_target_"), (typed or "").partition("=")[2])
    if renamed is not None:
        return renamed
    others = _options_with(key)
    if others and not near_names(name, siblings):
        return f"{key} belongs to {' or '.join(others)}: choose one of them, or leave it out"
    near = _near(key, words)
    if typed is not None and not near_names(name, siblings) and _is_argument(node, name):
        owner = str(node["_target_"]).rpartition(".")[2]
        return (
            f"{key} is an argument of {owner} that the configuration does not list: type "
            f"{shell_word(f'+{typed}')}, with a plus"
        )
    return unknown_key(key, "the configuration", siblings, near)


def _is_argument(node: DictConfig, name: str) -> bool:
    """Return whether what a node builds takes an argument of this name."""
    try:
        target = get_object(str(node["_target_"]))
        return name in inspect.signature(target).parameters
    except Exception:  # whatever a foreign module raises when it is imported: then nobody knows
        return False


def _options_with(key: str) -> list[str]:
    """Return the shipped options of the key's group that have it, as they are typed."""
    group, loader = key.partition(".")[0], make_loader()
    options = loader.get_group_options(group)
    return [f"{group}={name}" for name in options if key in option_paths(loader, group, name)]


def _near(key: str, words: Sequence[str]) -> list[str]:
    others = [word for word in words if word.lstrip("+").partition("=")[0] != key]
    return near_keys(key, known_paths(make_loader(), others))


def _unknown_word(word: str, allowed: Iterable[str], paths: Sequence[str]) -> str:
    """Return the sentence for a word with an unknown beginning; its end may say what is meant."""
    match = _OVERRIDE.match(word)
    typed = match["key"] if match else word
    near = near_keys(typed, paths)
    if not near:
        return unknown_key(str(_first_key(word)), "the command line", allowed)
    recipe = " (with a recipe, such as pruning=channel)" if _of_recipes(near, paths) else ""
    return f"{typed} is not known to the command line. Did you mean {' or '.join(near)}?{recipe}"


def _of_recipes(near: Sequence[str], paths: Sequence[str]) -> bool:
    """Return whether a key is one of a recipe that has not been chosen: `pruning` is not there."""
    return near[0].startswith("pruning.") and "pruning" not in paths[: paths.index(near[0])]
