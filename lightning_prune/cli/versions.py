"""What a bug report needs: the versions of what is installed."""

import platform
from importlib.metadata import PackageNotFoundError, version

import lightning_prune

_BESIDE = ("torch", "lightning", "hydra-core", "torch-pruning")


def versions() -> str:
    """Return our version, and those of what we stand on, without importing any of it.

    >>> versions().startswith("lightning-prune ")
    True
    """
    beside = ", ".join(f"{name} {found}" for name in _BESIDE if (found := _version(name)))
    own = _version("lightning-prune") or lightning_prune.__version__
    return f"lightning-prune {own} ({beside}, Python {platform.python_version()})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
