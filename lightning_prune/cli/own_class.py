"""Finds what a user names on the command line as `package.module.Name`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune.errors import ConfigError


def own_class(name: str) -> Callable[..., nn.Module]:
    """Import a network's class, or a function that builds one; the current folder is looked at too.

    Raises:
        ConfigError: there is no such name, or it cannot be called.

    >>> own_class("torch.nn.Identity")
    <class 'torch.nn.modules.linear.Identity'>
    """
    module, _, attribute = name.rpartition(".")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"class {name!r} was not found ({error}): pass --class package.module.Class"
        ) from error
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise ConfigError(f"{name} is no class and no function: pass --class package.module.Class")
    return found  # type: ignore[no-any-return]
