"""Where the channels of each kind of layer live, and how its sizes follow from its tensors."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize

Role = Literal["producer", "carrier", "consumer"]
"""What a layer does with the channels of a group: makes them, passes each on, or reads them."""


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


def width_of(layer: nn.Module) -> int:
    """Return the number of output channels of a convolution or linear layer."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features
    raise TypeError(f"{type(layer).__name__} has no output channels: pass a Conv or Linear layer")


def is_custom(layer: nn.Module) -> bool:
    """Return whether a layer says itself what its channels are, as a ``CustomLayer`` does."""
    return all(callable(getattr(layer, name, None)) for name in ("proxy", "channel_dims"))


def channel_dims(layer: nn.Module, role: Role) -> list[tuple[str, int]]:
    """List the tensors of a layer that hold the channels of a group, each with its dimension.

    Parameters and buffers alike, ``None`` ones left out; the name is relative to the layer.

    >>> channel_dims(nn.Conv2d(3, 8, 1), "producer")
    [('weight', 0), ('bias', 0)]
    >>> channel_dims(nn.Linear(3, 8), "consumer")
    [('weight', 1)]
    """
    if is_custom(layer):
        own: list[tuple[str, int]] = layer.channel_dims(role)  # type: ignore[operator]
        return own
    if role == "consumer":
        return [("weight", 0 if isinstance(layer, _ConvTransposeNd) else 1)]
    if isinstance(layer, _ConvTransposeNd) and not is_depthwise(layer):
        dims = [("weight", 1), ("bias", 0)]
    elif isinstance(layer, _BatchNorm | _InstanceNorm):
        dims = [("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)]
    else:
        dims = [("weight", 0), ("bias", 0)]
    return [(name, dim) for name, dim in dims if getattr(layer, name, None) is not None]


def output_dims(layer: nn.Module) -> list[tuple[str, int]]:
    """List the tensors of a convolution or linear layer by output channel, with the dimension.

    Of any such layer, whether it is in a group or not.

    >>> output_dims(nn.Conv2d(3, 8, 1)), output_dims(nn.ConvTranspose2d(3, 8, 1, bias=False))
    ([('weight', 0), ('bias', 0)], [('weight', 1)])
    """
    return channel_dims(layer, "producer")


def scale_of(layer: nn.Module) -> str | None:
    """Return the name of a norm's scale of single channels, or None where it has none.

    Batch norms have one, and custom layers that name it in ``channel_scale``.

    >>> scale_of(nn.BatchNorm2d(3)), scale_of(nn.BatchNorm2d(3, affine=False))
    ('weight', None)
    """
    name = "weight" if isinstance(layer, _BatchNorm) else None
    if is_custom(layer):
        name = getattr(layer, "channel_scale", None)
    return name if name is not None and getattr(layer, name) is not None else None


def sync_sizes(layer: nn.Module) -> None:
    """Set the size attributes of a layer from the shapes of its tensors.

    A depthwise convolution stays depthwise: its ``groups`` follow its width.
    """
    weight = getattr(layer, "weight", None)
    if isinstance(layer, _ConvNd) and isinstance(weight, Tensor):
        depthwise = is_depthwise(layer)
        transposed = isinstance(layer, _ConvTransposeNd)
        first, second = weight.shape[0], weight.shape[1]
        if depthwise:
            layer.groups = layer.in_channels = layer.out_channels = first
        elif transposed:
            layer.in_channels, layer.out_channels = first, second * layer.groups
        else:
            layer.in_channels, layer.out_channels = second * layer.groups, first
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _BatchNorm | _InstanceNorm):
        vector = weight if weight is not None else layer.running_mean
        if vector is not None:
            layer.num_features = vector.shape[0]
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.shape[0]
    elif isinstance(layer, nn.GroupNorm) and weight is not None:
        layer.num_channels = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)


def why_unprunable(layer: nn.Module, role: Role) -> str | None:
    """Return why the channels of a layer cannot be cut, or None where they can."""
    kind = type(layer).__name__
    # weight_g, weight_orig: what torch.nn.utils' weight_norm, spectral_norm and prune leave.
    computed = hasattr(layer, "weight_g") or hasattr(layer, "weight_orig")
    if parametrize.is_parametrized(layer) or computed:
        return f"its weight is computed (parametrized {kind}): remove the parametrization first"
    if role == "carrier":
        if isinstance(layer, _BatchNorm | _InstanceNorm | nn.PReLU) or is_depthwise(layer):
            return None
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
            return f"{kind} mixes the channels: cutting some changes what the others become"
        return f"{kind} is not supported between a layer and its consumers"
    if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
        return f"{kind} with groups={layer.groups} is neither dense nor depthwise"
    if isinstance(layer, _ConvNd | nn.Linear):
        return None
    return f"{kind} is not supported as a consumer of pruned channels"
