"""What is known of kinds of layers that operations do not say."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from lightning_prune.graph.labels import NONE, TensorLabels, labels_of, set_labels

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


def passes_on(*tensors: tuple[str, int]) -> Rule:
    """Return the rule of a layer that passes each channel on by itself, (B, C, ...) to (B, C, ...).

    A norm that counts cut channels as zeros does, and one that a cut rescales.

    Args:
        *tensors: Names of its parameters and buffers by channel, each with its axis of the
            channels; those that a layer does not have are passed over.

    >>> register(nn.GroupNorm, passes_on(("weight", 0), ("bias", 0)))
    >>> register(nn.GroupNorm, None)
    """

    def rule(module: nn.Module, trace: Any, inputs: Any, output: Any) -> None:
        known = labels_of(inputs[0])
        axes = {} if known is None else dict(known.axes)
        channels = inputs[0].shape[1]
        own = axes.get(1, np.full(channels, NONE, dtype=np.int64))
        for name, dim in tensors:
            if getattr(module, name, None) is None or channels == 1:
                continue
            labels = trace.axis(module, name, dim)
            trace.labels.join(own, labels, "it reads values that no layer makes")
            own = np.where(own >= 0, own, labels)
        if (own >= 0).any():
            axes[1] = own
        set_labels(output, TensorLabels(axes) if axes else None)

    return rule
