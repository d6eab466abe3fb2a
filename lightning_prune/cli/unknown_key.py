"""The sentence for a misspelt key."""

import difflib
from collections.abc import Iterable


def unknown_key(path: str, owner: str, allowed: Iterable[str]) -> str:
    """Return the sentence for a key that `owner` does not know, near misses first."""
    prefix, _, key = path.rpartition(".")
    names = sorted(name for name in allowed if not name.startswith("_"))
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.6)
    full = [f"{prefix}.{name}" if prefix else name for name in near]
    hint = f" Did you mean {' or '.join(full)}?" if full else ""
    return f"{path} is not known to {owner}.{hint} Allowed: {', '.join(names)}"
