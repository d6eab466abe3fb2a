"""Read values that Hydra's grammar has no place for, such as paths with `=` or blanks."""

import re
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lightning_prune.errors import ConfigError

_WORD = re.compile(r"^(?P<key>(?:\+\+?|~)?[^=\s'\"\[\]{}(),]+)=(?P<value>.*)$", re.DOTALL)
# A value that begins so is a list, a mapping, a quoted text or a reference that is not whole.
_STRUCTURE = ("[", "{", "'", '"', "$")


def parse(word: str) -> Override:
    """Parse one override.

    Raises:
        HydraException: it is none.
    """
    return OverridesParser.create().parse_override(word)


def understood_word(word: str, sweep: bool = False) -> str:
    r"""Return an override as Hydra can read it: what its grammar cannot read is put into quotes.

    Args:
        word: The override.
        sweep: Whether commas separate the values of a sweep.

    Raises:
        ConfigError: there is no way to read it; the message shows how such a word is typed.

    Example:
        >>> understood_word("ckpt_path=runs/epoch=3-step=40.ckpt")
        "ckpt_path='runs/epoch=3-step=40.ckpt'"
        >>> understood_word("model.weights=a=1.pt,b=2.pt", sweep=True)
        "model.weights='a=1.pt','b=2.pt'"
        >>> understood_word("layers=[!network.head,network.*]")
        "layers=['!network.head',network.*]"
    """
    if re.match(r"^~[\w./@-]+$", word):  # a deletion
        return word
    key, value = _split(word)
    if value.startswith(("~/", "~\\")):  # a shell replaces it only where a word begins
        value = str(Path(value).expanduser())
    if _is_override(f"{key}={value}"):
        return f"{key}={value}"
    quoted = _quoted_value(value, sweep)
    if quoted is not None and _is_override(f"{key}={quoted}"):
        return f"{key}={quoted}"
    raise ConfigError(f"{word!r} cannot be read: {_advice(key, value)}")


def quote(value: str) -> str:
    r"""Return a text as a value in Hydra's grammar, whatever characters it has.

    >>> print(quote("/runs/it's lr=0.1"), quote("C:\\new\\"))
    '/runs/it\'s lr=0.1' 'C:\new\\'
    """
    # Backslashes count only where a quote follows them.
    inner = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    tail = len(inner) - len(inner.rstrip("\\"))
    return f"'{inner}{chr(92) * tail}'"


def shell_word(word: str) -> str:
    """Return a word as it is typed into a shell, in double quotes where that is possible.

    >>> print(shell_word("seed=3"), shell_word("ckpt_path='a=1.ckpt'"))
    seed=3 "ckpt_path='a=1.ckpt'"
    """
    quoted = shlex.quote(word)
    return f'"{word}"' if "'\"" in quoted and not set(word) & set('"$`\\!') else quoted


def _split(word: str) -> tuple[str, str]:
    found = _WORD.match(word)
    if found:
        return found["key"], found["value"]
    if re.match(r"^[+~]*[\w./@-]+$", word):
        raise ConfigError(f"{word!r} has no value: type {word}=VALUE")
    raise ConfigError(f"{word!r} cannot be read: an override is KEY=VALUE, such as seed=3")


def _is_override(word: str) -> bool:
    try:
        parse(word)
    except HydraException:
        return False
    return True


def _quoted_value(value: str, sweep: bool) -> str | None:
    """Return the value with quotes where they help; None where it is a structure that is broken."""
    if value.startswith("[") and value.endswith("]"):
        inner = value[1:-1]
        if any(mark in inner for mark in "[]{}'\""):
            return None
        return f"[{','.join(map(_quoted_item, inner.split(',')))}]"
    if value.startswith(_STRUCTURE):
        return None
    if sweep and "," in value:
        return ",".join(map(_quoted_item, value.split(",")))
    return quote(value)


def _quoted_item(item: str) -> str:
    item = item.strip()
    return item if _is_override(f"key={item}") else quote(item)


def _advice(key: str, value: str) -> str:
    if value.startswith("["):
        example = f"{key}=['first','second']"
    elif value.startswith("{"):
        example = f"{key}={{name:value}}"
    elif value.startswith("$"):
        example = f"{key}=${{other.key}}"
    else:
        example = f"{key}={quote(value.strip(chr(39) + chr(34)))}"
    if not _is_override(example):
        return "an override is KEY=VALUE, such as seed=3"
    return f"with quotes for the shell it is typed {shell_word(example)}"
