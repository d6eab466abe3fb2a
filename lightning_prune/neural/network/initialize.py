"""Starting values of the ResNet."""

import warnings
from typing import Literal

from torch import nn

from lightning_prune.neural.network.res_block import ResBlock
from lightning_prune.neural.network.weight_norm_conv import WeightNormConv3d


def initialize(
    network: nn.Module,
    nonlinearity: Literal["leaky_relu", "relu"] = "leaky_relu",
    zero_init_residual: bool = True,
) -> None:
    r"""Draw the 3-D convolutions again, and let every residual block start as its shortcut.

    Weights are normal with standard deviation :math:`\sqrt{2 / (1 + a^2) / \text{fan\_out}}`,
    a = 0.01 for ``leaky_relu`` (it stands for SiLU) and 0 for ``relu``; biases are zero. Fan-out is
    torch's, output channels times taps, for depthwise convolutions as well: their small outputs
    are what the norm behind them divides by.

    Args:
        network: A ``ResNet3d`` or a part of it; not the temporal convolution.
        nonlinearity: That the weights reckon with.
        zero_init_residual: Start the scale of the last norm of each block at zero.

    Warns:
        UserWarning: ``zero_init_residual`` without a norm that has a learnable scale.

    Source: K. He, X. Zhang, S. Ren, J. Sun, 2015, Delving Deep into Rectifiers, arXiv 1502.01852;
    P. Goyal et al., 2017, Accurate, Large Minibatch SGD, arXiv 1706.02677 (zero scale).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(
                module.weight, a=0.01, mode="fan_out", nonlinearity=nonlinearity
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, WeightNormConv3d):
            module.reset_gain()
    if zero_init_residual:
        _zero_last_norms(network)


def _zero_last_norms(network: nn.Module) -> None:
    without = []
    for name, module in network.named_modules():
        if isinstance(module, ResBlock):
            norm = module.main.norm
            # RMSNorm calls its scale gamma, batch norm weight.
            parameters = dict(norm.named_parameters())
            scale = parameters.get("gamma", parameters.get("weight"))
            if scale is None or not scale.requires_grad:
                without.append(name)
            else:
                nn.init.zeros_(scale)
    if without:
        warnings.warn(
            f"zero_init_residual has no effect on {', '.join(without)}: their norms have no "
            "learnable scale; set norm_affine to true, or zero_init_residual to false",
            stacklevel=3,
        )
