"""What is known of kinds of layers that operations do not say."""

from collections.abc import Callable
from typing import Any

from torch import nn

Rule = Callable[[nn.Module, Any, Any, Any], None]
"""What a layer does with labels of channels: ``rule(module, trace, inputs, output)``."""

_RULES: dict[type[nn.Module], Rule] = {}


def register(kind: type[nn.Module], rule: Rule | None) -> None:
    """State what a kind of layer does with channels, instead of following its operations.

    Most layers need none: what their operations do is seen. A rule serves where a forward pass
    reads channels at places that depend on values, or makes up for channels that are gone.

    Args:
        kind: Class of the layer; subclasses are of the kind too.
        rule: Called after each forward pass with the module, the trace, inputs and output; it
            joins labels with ``trace.labels`` and gives the output its own. None takes it back.

    Raises:
        TypeError: ``kind`` is no class of modules.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"kind is {kind!r}: pass a class of torch.nn.Module")
    if rule is None:
        _RULES.pop(kind, None)
    else:
        _RULES[kind] = rule


def rule_of(module: nn.Module) -> Rule | None:
    """Return the rule of a layer's kind, or None where its operations are followed."""
    if not _RULES:
        return None
    return next((_RULES[kind] for kind in type(module).__mro__ if kind in _RULES), None)
