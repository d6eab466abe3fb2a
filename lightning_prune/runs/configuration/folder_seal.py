"""Know the files of a run's folder that this user wrote from those that came from elsewhere."""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.files.read_json import read_json
from lightning_prune.files.write_json import write_json

SEALS = "seals.json"


@rank_zero_only
def seal(path: Path) -> None:
    """Record in the file's folder that this user wrote it, as it is now.

    The note is a keyed digest; the key, made at the first need, is in this user's home folder
    (`$XDG_STATE_HOME/lightning_prune/key`, else `~/.local/state/...`). Where it cannot be kept
    nothing is noted, and the file counts as one from elsewhere.
    """
    key = _key(create=True)
    if key is None:
        return
    seals = read_json(path.with_name(SEALS)) or {}
    with contextlib.suppress(OSError):
        write_json(path.with_name(SEALS), {**seals, path.name: _digest(key, path)})


def is_sealed(path: Path) -> bool:
    """Return whether this user wrote a file, and nobody changed it since."""
    key, seals = _key(create=False), read_json(path.with_name(SEALS)) or {}
    noted = seals.get(path.name)
    if key is None or not isinstance(noted, str) or not noted.isascii():
        return False
    try:
        return hmac.compare_digest(noted, _digest(key, path))
    except OSError:
        return False


def _digest(key: bytes, path: Path) -> str:
    content = path.name.encode() + b"\0" + path.read_bytes()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _key(create: bool) -> bytes | None:
    """Return this user's key; None where there is none, or no place for one."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "lightning_prune" / "key"
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"key.{secrets.token_hex(8)}")
            draft.touch(mode=0o600)
            draft.write_bytes(secrets.token_bytes(32))
            draft.replace(path)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home folder at all
        return None
    return key if len(key) == 32 else None
