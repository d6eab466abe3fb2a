"""The installed `ultralytics` package, imported when a network of it is needed."""

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

OLDEST = (8, 3)
"""Version below which their losses and networks have other forms."""


def their_module(name: str = "") -> ModuleType:
    """Import the package, or a module of it by its name behind ``ultralytics.``.

    Raises:
        ModuleNotFoundError: it is not installed, or too old; the message has the command.
    """
    install = "pip install 'lightning-prune[ultralytics]'"
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # it would run pip in the middle of a run
    try:
        package = importlib.import_module("ultralytics")
    except ModuleNotFoundError as error:
        if error.name != "ultralytics":
            raise ModuleNotFoundError(
                f"ultralytics needs {error.name}, which is not installed: {install}"
            ) from error
        raise ModuleNotFoundError(
            f"model=ultralytics needs the package ultralytics (AGPL-3.0): {install}"
        ) from error
    version = version_of(package)
    if version[:2] < OLDEST:
        raise ModuleNotFoundError(
            f"ultralytics {package.__version__} is installed, {OLDEST[0]}.{OLDEST[1]} or later is "
            f"needed: {install}"
        )
    return importlib.import_module(f"ultralytics.{name}") if name else package


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the package from describing what it does; what it warns of is still said."""
    logger = logging.getLogger("ultralytics")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def version_of(package: ModuleType) -> tuple[int, ...]:
    """Return the numbers of a version, as in (8, 4, 190)."""
    parts = str(package.__version__).split(".")[:3]
    return tuple(int(part) for part in parts if part.isdigit())


def settings_of(task: str, **values: Any) -> Any:
    """Return their settings (gains of the loss, thresholds) with some of them replaced."""
    return their_module("cfg").get_cfg(overrides={"task": task, **values})
