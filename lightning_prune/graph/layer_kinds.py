"""What is known of kinds of layers: the one place that knows any."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_prune.graph.labels import NONE, TensorLabels, labels_of, set_labels

Role = Literal["producer", "carrier", "consumer"]
"""What a layer does with the channels of a group: makes them, passes each on, or reads them."""
Rule = Callable[[nn.Module, Any, Any, Any], None]
"""What a layer does with labels of channels: ``rule(module, trace, inputs, output)``."""

_RULES: dict[type[nn.Module], Rule] = {}


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether each output channel of a convolution reads exactly its own input channel."""
    return (
        isinstance(layer, _ConvNd)
        and layer.groups > 1
        and layer.groups == layer.in_channels == layer.out_channels
    )


def is_producer(layer: nn.Module) -> bool:
    """Return whether a layer can be a group's root: it makes channels out of other channels."""
    return isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer)


def makes_channels(layer: nn.Module) -> bool:
    """Return whether a layer makes channels, as a root or otherwise: it is pruned or refused."""
    others = nn.Embedding | nn.EmbeddingBag | nn.Bilinear | nn.RNNBase | nn.MultiheadAttention
    return is_producer(layer) or isinstance(layer, others)


def holds_groups(layer: nn.Module) -> bool:
    """Return whether a number in a layer, ``groups``, says how many groups it convolves in."""
    return isinstance(layer, _ConvNd)


def width_of(layer: nn.Module) -> int:
    """Return the number of output channels of a convolution or linear layer."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features
    raise TypeError(f"{type(layer).__name__} has no output channels: pass a Conv or Linear layer")


def output_dims(layer: nn.Module) -> list[tuple[str, int]]:
    """List the tensors of a convolution or linear layer by output channel, with the dimension.

    Weight and bias, and the vectors that a class of its own names in ``output_vectors``.

    >>> output_dims(nn.Conv2d(3, 8, 1)), output_dims(nn.ConvTranspose2d(3, 8, 1, bias=False))
    ([('weight', 0), ('bias', 0)], [('weight', 1)])
    """
    is_turned = isinstance(layer, _ConvTransposeNd) and not is_depthwise(layer)
    own = [("weight", int(is_turned)), ("bias", 0)]
    own += [(name, 0) for name in getattr(type(layer), "output_vectors", ())]
    return [(name, dim) for name, dim in own if getattr(layer, name, None) is not None]


def applies_weight(layer: nn.Module) -> bool:
    """Return whether a convolution or linear layer applies its weight as it is, all of it.

    >>> applies_weight(nn.Linear(3, 8)), applies_weight(nn.ConvTranspose2d(3, 8, 1))
    (True, False)
    """
    if layer._parameters.keys() - {"weight", "bias"} or parametrize.is_parametrized(layer):
        return False
    if isinstance(layer, _ConvNd):
        return layer.groups == 1 and not isinstance(layer, _ConvTransposeNd)
    return isinstance(layer, nn.Linear)


def scale_of(layer: nn.Module) -> str | None:
    """Return the name of a norm's scale of single channels, or None where it has none.

    Batch norms have one, and norms with a rule of their own (``register``) that name it in
    ``channel_scale``.

    >>> scale_of(nn.BatchNorm2d(3)), scale_of(nn.BatchNorm2d(3, affine=False))
    ('weight', None)
    """
    name = "weight" if isinstance(layer, _BatchNorm) else None
    if rule_of(layer) is not None:
        name = getattr(layer, "channel_scale", None)
    return name if name is not None and getattr(layer, name) is not None else None


def sync_sizes(layer: nn.Module) -> None:
    """Set the size attributes of a layer from the shapes of its tensors.

    A depthwise convolution stays depthwise: its ``groups`` follow its width.
    """
    weight = weight_of(layer)
    if isinstance(layer, _ConvNd) and weight is not None:
        depthwise = is_depthwise(layer)
        transposed = isinstance(layer, _ConvTransposeNd)
        first, second = weight.shape[0], weight.shape[1]
        if depthwise:
            layer.groups = layer.in_channels = layer.out_channels = first
        elif transposed:
            layer.in_channels, layer.out_channels = first, second * layer.groups
        else:
            layer.in_channels, layer.out_channels = second * layer.groups, first
    elif isinstance(layer, nn.Linear) and weight is not None:
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, _BatchNorm | _InstanceNorm):
        vector = weight if weight is not None else layer.running_mean
        if vector is not None:
            layer.num_features = vector.shape[0]
    elif isinstance(layer, nn.PReLU) and weight is not None:
        layer.num_parameters = weight.shape[0]
    elif isinstance(layer, nn.GroupNorm) and weight is not None:
        layer.num_channels = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, nn.Bilinear) and weight is not None:
        layer.out_features, layer.in1_features, layer.in2_features = weight.shape
    elif isinstance(layer, nn.RNNBase):
        _sync_recurrent(layer, "_l0")
    elif isinstance(layer, nn.RNNCellBase):
        _sync_recurrent(layer, "")


def _sync_recurrent(layer: nn.RNNBase | nn.RNNCellBase, suffix: str) -> None:
    """Set the sizes of a recurrent layer; all its layers and directions have the same ones."""
    inputs, states = (getattr(layer, f"weight_{part}{suffix}") for part in ("ih", "hh"))
    layer.input_size = inputs.shape[1]
    layer.hidden_size = states.shape[1]
    projection = getattr(layer, f"weight_hr{suffix}", None)
    if projection is not None:
        layer.proj_size, layer.hidden_size = projection.shape


@torch.no_grad()
def weight_of(layer: nn.Module) -> Tensor | None:
    """Return a layer's weight; computed again where it is computed from other tensors."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(layer, hook.name, hook.compute_weight(layer))
        elif isinstance(hook, SpectralNorm):
            setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=False))
        elif isinstance(hook, BasePruningMethod):
            setattr(layer, hook._tensor_name, hook.apply_mask(layer))
    if not parametrize.is_parametrized(layer, "weight"):
        weight = getattr(layer, "weight", None)
        return weight if isinstance(weight, Tensor) else None
    parametrizations = layer.get_submodule("parametrizations.weight")
    parts = list(parametrizations.modules())
    modes = [module.training for module in parts]
    for module in parts:
        module.training = False  # a spectral norm would iterate
    computed = layer.weight
    for module, mode in zip(parts, modes, strict=True):
        module.training = mode
    return computed if isinstance(computed, Tensor) else None


def divided_by_length(layer: nn.Module) -> list[tuple[str, int]]:
    """List the tensors of which a weight norm divides each slice along a dimension by its length.

    A channel of zeros there would be no number: the gain beside it is what makes it zero.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 8))
    >>> divided_by_length(layer.parametrizations.weight)
    [('original1', 0)]
    """
    found: list[tuple[str, Any]] = []
    if isinstance(layer, parametrize.ParametrizationList):
        found += [("original1", part.dim) for part in layer if type(part).__name__ == "_WeightNorm"]
    hooks = layer._forward_pre_hooks.values()
    found += [(f"{hook.name}_v", hook.dim) for hook in hooks if isinstance(hook, WeightNorm)]
    return [(name, dim) for name, dim in found if isinstance(dim, int) and dim >= 0]


# --- rules of kinds -----------------------------------------------------------------------------


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
