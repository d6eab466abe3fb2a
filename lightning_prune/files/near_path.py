"""Paths as a person would type them."""

from pathlib import Path


def near_path(path: str | Path) -> str:
    """Return a path relative to the current folder where it is inside, else as it is.

    >>> near_path(Path.cwd() / "outputs" / "run"), near_path("/elsewhere/run")
    ('outputs/run', '/elsewhere/run')
    """
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)
