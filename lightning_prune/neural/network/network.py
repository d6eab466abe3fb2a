"""The whole network: from a video and the animal's behaviour to the cells' log-rates."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_prune.neural.network.gaussian_readout import GaussianReadout
from lightning_prune.neural.network.initialize import initialize
from lightning_prune.neural.network.modulator import ConvGRUModulator
from lightning_prune.neural.network.options import (
    ConvNetOptions,
    FrontendOptions,
    ModulatorOptions,
    ReadoutOptions,
)
from lightning_prune.neural.network.resnet import ResNet3d
from lightning_prune.neural.network.temporal_conv import TemporalConv


class NeuralResponseNetwork(nn.Module):
    """Predict the log-rates of the recorded cells of several sessions.

    Temporal convolution, 3-D ResNet, ConvGRU with the behaviour: the core, which all sessions
    share. Each session has a readout of its own. The defaults are the v2 configuration.

    Args:
        cells: Number of cells of each session.
        frontend: The temporal convolution.
        convnet: The ResNet.
        modulator: The ConvGRU; ``feature_dim`` is the last of the ResNet's channels.
        readout: The readouts.

    Raises:
        ValueError: there is no session, or options do not go together.

    Source: VisionCore, Yates Lab (MIT licence), from which the published model is known.

    >>> import torch
    >>> network = NeuralResponseNetwork([5, 3]).eval()
    >>> rates = network(torch.zeros(2, 1, 25, 51, 51), torch.zeros(2, 42))
    >>> [tuple(rate.shape) for rate in rates]
    [(2, 5), (2, 3)]
    """

    def __init__(
        self,
        cells: Sequence[int],
        frontend: FrontendOptions | None = None,
        convnet: ConvNetOptions | None = None,
        modulator: ModulatorOptions | None = None,
        readout: ReadoutOptions | None = None,
    ):
        super().__init__()
        frontend = frontend or FrontendOptions()
        convnet = convnet or ConvNetOptions()
        modulator = modulator or ModulatorOptions()
        readout = readout or ReadoutOptions()
        if not cells or any(count < 1 for count in cells):
            raise ValueError(
                f"cells={list(cells)}: pass the number of cells of each session, at least 1 each"
            )
        if modulator.feature_dim != convnet.channels[-1]:
            raise ValueError(
                f"modulator.feature_dim={modulator.feature_dim} is not the last of "
                f"convnet.channels={list(convnet.channels)}: make them equal"
            )
        self.frontend = TemporalConv(frontend.kernel_size, frontend.num_channels, frontend.init)
        self.convnet = ResNet3d(frontend.num_channels, convnet)
        initialize(self.convnet, convnet.init, convnet.zero_init_residual)
        self.modulator = ConvGRUModulator(modulator)
        self.readouts = nn.ModuleList(
            GaussianReadout(
                modulator.hidden_dim,
                count,
                readout.bias,
                readout.initial_std,
                readout.initial_mean_scale,
            )
            for count in cells
        )

    def core(self, stimulus: Tensor, behavior: Tensor) -> Tensor:
        """Return the features that all sessions share, (B, hidden_dim, 1, h, w).

        Args:
            stimulus: (B, 1, T, H, W), the oldest frame first.
            behavior: (B, D), or (B, S, D) with a step for each frame of the ResNet's result; of
                more steps the last are read.

        Raises:
            ValueError: an input has another shape.
        """
        if stimulus.dim() != 5 or stimulus.shape[1] != 1:
            raise ValueError(
                f"stimulus has shape {tuple(stimulus.shape)}: pass (batch, 1, frames, height, "
                "width)"
            )
        out: Tensor = self.modulator(self.convnet(self.frontend(stimulus)), behavior)
        return out

    def forward(self, stimulus: Tensor, behavior: Tensor) -> list[Tensor]:
        """Return the log-rates (B, N) of each session's cells, arguments as of ``core``."""
        features = self.core(stimulus, behavior)
        return [readout(features) for readout in self.readouts]
