"""What a checkpoint of Lightning holds, before Lightning takes its types for granted."""

import re
from typing import Any

from lightning_prune.files.file_error import printable
from lightning_prune.files.plain_values import is_size

_VERSION = re.compile(r"\d{1,9}(\.\w{1,30}){0,5}([+-]?[\w.]{1,60})?", re.ASCII)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": (list, tuple),
    "lr_schedulers": (list, tuple),
    "hyper_parameters": dict,
    "hparams_name": (str, type(None)),
}
_NAMED = ("state_dict", "loops", "callbacks", "hyper_parameters")


def check_lightning(content: Any) -> dict[str, Any]:
    """Return the content of a checkpoint of Lightning if its parts have the types of such.

    Raises:
        ValueError: it is no such checkpoint, or the file was altered; the message names the part.
    """
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError("no Lightning checkpoint")
    for key, kind in _KINDS.items():
        if key in content and not isinstance(content[key], kind):
            raise ValueError(f"altered: {key} is a {type(content[key]).__name__}")
    for key in _NAMED:
        odd = next((name for name in content.get(key, {}) if not _is_text(name)), "")
        if odd != "":
            raise ValueError(f"altered: a name in {key} is no text but a {type(odd).__name__}")
    for key in ("epoch", "global_step"):
        if key in content and not is_size(content[key]):
            raise ValueError(f"altered: {key} is no number from 0 to 2^63")
    version = content.get("pytorch-lightning_version", "0")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError("altered: pytorch-lightning_version is no version")
    for key in ("optimizer_states", "lr_schedulers"):
        for state in content.get(key, ()):
            _check_state(key, state)
    return content


def _is_text(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(name.encode() or True)
    except UnicodeEncodeError:  # half a pair of surrogates, which no terminal prints
        return False


def _check_state(key: str, state: Any) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"altered: {key} holds a {type(state).__name__}")
    groups = state.get("param_groups", [])
    fits = isinstance(groups, list | tuple) and all(isinstance(group, dict) for group in groups)
    if key != "optimizer_states" or (fits and isinstance(state.get("state", {}), dict)):
        return
    raise ValueError(f"altered: the states in {printable(key)} are not those of an optimizer")
