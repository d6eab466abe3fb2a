"""Convolutions and linear layers as the matrix products that they are."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize


def is_matrix(layer: nn.Module) -> bool:
    """Return whether a layer multiplies its inputs with a weight of its own, and adds a bias.

    >>> is_matrix(nn.ConvTranspose2d(3, 8, 2)), is_matrix(nn.LayerNorm(3))
    (True, False)
    """
    if layer._parameters.keys() - {"weight", "bias"} or parametrize.is_parametrized(layer):
        return False
    if layer._parameters.get("weight") is None:  # computed, or not there yet
        return False
    return isinstance(layer, nn.Linear | _ConvNd)


class LayerMatrix:
    r"""A layer as ``y = W x + b`` for each place of its output and each of its groups.

    Of a convolution x is the patch of inputs under the kernel, channel by channel, taps within; a
    transposed one is the ordinary one that reads its inputs with zeros between them and its kernel
    turned round. Shapes: W is (groups, outputs, inputs), where inputs counts channels times taps.

    Args:
        layer: A layer of which ``is_matrix`` holds.

    >>> conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    >>> matrix, x = LayerMatrix(conv), torch.rand(1, 2, 8, 8)
    >>> matrix.places(x), matrix.weight.shape
    ((4, 4), torch.Size([1, 3, 18]))
    >>> rows = matrix.rows(x, torch.tensor([[5]]))  # the place in row 1, column 1
    >>> torch.allclose(rows[0] @ matrix.weight[0].T + conv.bias, conv(x)[:, :, 1, 1], atol=1e-6)
    True
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.transposed = isinstance(layer, _ConvTransposeNd)
        self.groups = layer.groups if isinstance(layer, _ConvNd) else 1

    @property
    def taps(self) -> int:
        """Inputs of the matrix for each input channel of a group."""
        return self.layer.get_parameter("weight")[0, 0].numel()

    @property
    def weight(self) -> Tensor:
        """W, (groups, outputs, inputs); a copy where the layer is transposed."""
        weight = self.layer.get_parameter("weight").detach()
        if self.transposed:
            parts: Tensor = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
            return self._turned(parts).flatten(2)
        rows: Tensor = weight.flatten(1).unflatten(0, (self.groups, -1))
        return rows

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Write W, (groups, outputs, inputs), into the layer."""
        own = self.layer.get_parameter("weight")
        if self.transposed:
            shape = (self.groups, own.shape[1], own.shape[0] // self.groups, *own.shape[2:])
            own.copy_(self._turned(weight.reshape(shape)).transpose(1, 2).flatten(0, 1))
        else:
            own.copy_(weight.reshape(own.shape))

    @staticmethod
    def _turned(weight: Tensor) -> Tensor:
        return weight.flip(*range(3, weight.dim())) if weight.dim() > 3 else weight

    # --- what it reads ----------------------------------------------------------------------

    def images(self, x: Tensor) -> int:
        """Return how many images the inputs are of; without a dimension for them, one."""
        layer = self.layer
        alone = x.dim() == (len(layer.kernel_size) + 1 if isinstance(layer, _ConvNd) else 1)
        return 1 if alone else len(x)

    def places(self, x: Tensor) -> tuple[int, ...]:
        """Return the places of the output for each image: its spatial sizes, or tokens."""
        layer = self.layer
        if not isinstance(layer, _ConvNd):
            return (max(1, x[..., 0].numel() // max(1, self.images(x))),)
        sizes = x.shape[-len(layer.kernel_size) :]
        if self.transposed:
            return tuple(
                (size - 1) * stride - 2 * int(padding) + dilation * (kernel - 1) + more + 1
                for size, stride, padding, dilation, kernel, more in zip(
                    sizes, layer.stride, layer.padding, layer.dilation, layer.kernel_size,
                    layer.output_padding, strict=True,
                )
            )  # fmt: skip
        pads = layer._reversed_padding_repeated_twice[::-1]
        return tuple(
            (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
            for size, before, after, dilation, kernel, stride in zip(
                sizes, pads[::2], pads[1::2], layer.dilation, layer.kernel_size, layer.stride,
                strict=True,
            )
        )  # fmt: skip

    def rows(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Return what the matrix is multiplied with: (groups, images x places, inputs).

        Args:
            x: Inputs of the layer.
            chosen: (images, P) int64, places of each image's output, numbered row by row.
        """
        layer = self.layer
        chosen = chosen.to(x.device)
        if not isinstance(layer, _ConvNd):
            tokens = x.reshape(len(chosen), -1, x.shape[-1])
            rows = tokens.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
            return rows.flatten(0, 1)[None]
        x = self._read(x)
        spatial = len(layer.kernel_size)
        strides = (1,) * spatial if self.transposed else layer.stride
        index: list[Any] = []
        place = chosen
        for axis, count in reversed(list(enumerate(self._counts))):
            start = (place % count) * strides[axis]
            place = torch.div(place, count, rounding_mode="floor")
            taps = torch.arange(layer.kernel_size[axis], device=x.device) * layer.dilation[axis]
            shape = [1] * spatial
            shape[axis] = -1
            index.insert(0, start.view(*chosen.shape, *[1] * spatial) + taps.view(1, 1, *shape))
        image = torch.arange(len(chosen), device=x.device).view(-1, *[1] * (spatial + 1))
        patches = x.movedim(1, -1)[(image, *index)]  # (images, places, *kernel, channels)
        rows = patches.movedim(-1, 2).flatten(0, 1).flatten(2)  # (rows, channels, taps)
        parts: Tensor = rows.unflatten(1, (self.groups, -1)).flatten(2)
        return parts.movedim(1, 0)

    def _read(self, x: Tensor) -> Tensor:
        """Return the inputs as an ordinary convolution without padding would read them."""
        layer = self.layer
        assert isinstance(layer, _ConvNd)
        spatial = len(layer.kernel_size)
        if x.dim() == spatial + 1:
            x = x[None]
        self._counts = self.places(x)
        if not self.transposed:
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], layer.stride, strict=True)]
        apart = x.new_zeros(*x.shape[:2], *sizes)
        between: list[Any] = [slice(None, None, step) for step in layer.stride]
        apart[(..., *between)] = x
        pads: list[int] = []
        for dilation, kernel, padding, more in zip(
            layer.dilation, layer.kernel_size, layer.padding, layer.output_padding, strict=True
        ):
            around = dilation * (kernel - 1) - int(str(padding))
            pads = [around, around + more, *pads]
        return F.pad(apart, pads)
