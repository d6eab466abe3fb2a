"""Lists in which a module gathers the outputs of an epoch by itself, which no checkpoint holds."""

from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn


def empty_lists(module: nn.Module) -> set[str]:
    """Return the names of a module's attributes that are empty lists."""
    return {name for name, value in vars(module).items() if type(value) is list and not value}


def grown_lists(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Return which of these attributes are lists that hold something by now."""
    now = {name: getattr(module, name, None) for name in names}
    return sorted(name for name, value in now.items() if isinstance(value, list) and value)


def warn_of_lists(names: Iterable[str]) -> None:
    """Warn of what a run that is resumed within an epoch has lost."""
    named = ", ".join(f"self.{name}" for name in names)
    if named:
        rank_zero_warn(
            f"the checkpoint was written within an epoch, in which the module had gathered values "
            f"in {named}: lists are in no checkpoint, so what this epoch makes of them lacks what "
            "was gathered before. A torchmetric, or self.log, would be kept"
        )
