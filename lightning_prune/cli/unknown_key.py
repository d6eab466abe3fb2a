"""The sentence for a misspelt key."""

import difflib
from collections.abc import Iterable, Sequence


def unknown_key(
    path: str, owner: str, allowed: Iterable[str], elsewhere: Sequence[str] = ()
) -> str:
    """Return the sentence for a key that `owner` does not know, near misses first.

    Args:
        path: The key as it was given.
        owner: What does not know it.
        allowed: Names that may be given instead.
        elsewhere: Full paths of other keys that may be meant, where none of those is near.
    """
    prefix, _, key = path.rpartition(".")
    names = sorted(name for name in allowed if not name.startswith("_"))
    near = near_names(key, names)
    full = [f"{prefix}.{name}" if prefix else name for name in near] or list(elsewhere)
    hint = f" Did you mean {' or '.join(full)}?" if full else ""
    return f"{path} is not known to {owner}.{hint} Allowed: {', '.join(names)}"


def near_names(name: str, allowed: Iterable[str]) -> list[str]:
    """Return at most two names that are spelt like this one, capitals and dashes apart.

    >>> near_names("Max-Epoch", ["max_epochs", "devices"])
    ['max_epochs']
    """
    plain = {known.lower(): known for known in allowed}
    wanted = name.lower().replace("-", "_")
    found = difflib.get_close_matches(wanted, list(plain), n=2, cutoff=0.6)
    # The very name leaves no room for guesses.
    return [plain[wanted]] if wanted in plain else [plain[name] for name in found]
