"""``load_from_checkpoint`` that executes nothing of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import open_checked

Module = TypeVar("Module")


class class_only(classmethod):  # type: ignore[type-arg]
    """A class method that an instance does not have, since it would change nothing of it."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        method = super().__get__(None, owner)
        if instance is None:
            return method
        name = f"{owner.__name__}.{method.__name__}"

        def refuse(*_: Any, **__: Any) -> None:
            raise TypeError(f"{name} makes a new module: call it on the class, not on an instance")

        return refuse


def load_checked(
    load: Callable[..., Module], path: Any, weights_only: bool | None, **options: Any
) -> Module:
    """Call Lightning's ``load_from_checkpoint`` with a file that was checked.

    Args:
        load: That function.
        path: A file of this machine is checked, and loaded as it was when it was opened. Open
            files and addresses (``s3://``) are left to Lightning.
        weights_only: None means True; False is for files that the caller trusts, and checks
            nothing.
        options: Further arguments.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, no checkpoint, or holds pickled objects.
    """
    local = isinstance(path, str | Path) and "://" not in str(path)
    if weights_only is False or not local:
        return load(path, weights_only=weights_only is not False, **options)
    try:
        with open_checked(path) as file:
            return load(file, weights_only=True, **options)
    except CheckpointError as error:
        if "pickled objects" not in error.reason:
            raise
        advice = "weights_only=False loads, and executes, a file that you trust"
        raise CheckpointError(error.path, f"{error.reason} ({advice})") from error
