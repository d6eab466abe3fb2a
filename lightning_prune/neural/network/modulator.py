"""The recurrent network that joins what was seen with what the animal did."""

import torch
from torch import Tensor, nn

from lightning_prune.neural.network.conv_gru import ConvGRU
from lightning_prune.neural.network.options import ModulatorOptions


class ConvGRUModulator(nn.Module):
    """Embed the behaviour, join it to the features at every pixel, and run a ConvGRU over time.

    Args:
        options: Sizes and switches.

    Raises:
        ValueError: options do not go together.

    >>> modulator = ConvGRUModulator(ModulatorOptions())
    >>> modulator(torch.zeros(2, 256, 2, 6, 6), torch.zeros(2, 42)).shape
    torch.Size([2, 256, 1, 6, 6])
    """

    def __init__(self, options: ModulatorOptions):
        super().__init__()
        self.beh_emb = nn.Linear(options.behavior_dim, options.beh_emb_dim)
        self.gru = ConvGRU(
            options.feature_dim + options.beh_emb_dim,
            options.hidden_dim,
            options.kernel_size,
            learnable_h0=options.learnable_h0,
            use_residual=options.use_residual,
            grad_clip_val=options.grad_clip_val,
            use_layer_norm=options.use_layer_norm,
            use_depthwise=options.use_depthwise,
            use_grouped=options.use_grouped,
            num_groups=options.num_groups,
            candidate=options.candidate,
            init=options.init,
        )
        self.output_proj = nn.Conv2d(options.hidden_dim, options.hidden_dim, 1)

    def forward(self, features: Tensor, behavior: Tensor) -> Tensor:
        """Return the projected last state, (B, hidden_dim, 1, H, W).

        Args:
            features: (B, feature_dim, T, H, W).
            behavior: (B, behavior_dim), the same for all T frames; or (B, S, behavior_dim) with
                S >= T, of which the last T are read.

        Raises:
            ValueError: the behaviour has another shape.
        """
        frames, height, width = features.shape[2:]
        embedded = self.beh_emb(self._aligned(behavior, features))
        if embedded.dim() == 2:
            embedded = embedded.unsqueeze(1)
        everywhere = embedded.transpose(1, 2)[..., None, None].expand(-1, -1, frames, height, width)
        state = self.gru(torch.cat((features, everywhere), dim=1))
        out: Tensor = self.output_proj(state).unsqueeze(2)
        return out

    def _aligned(self, behavior: Tensor, features: Tensor) -> Tensor:
        wanted = self.beh_emb.in_features
        frames = features.shape[2]
        fits = (
            behavior.dim() in (2, 3)
            and behavior.shape[0] == features.shape[0]
            and behavior.shape[-1] == wanted
            and (behavior.dim() == 2 or behavior.shape[1] >= frames)
        )
        if not fits:
            raise ValueError(
                f"behavior has shape {tuple(behavior.shape)}: pass (batch, {wanted}), or "
                f"(batch, steps, {wanted}) with at least {frames} steps, for a batch of "
                f"{features.shape[0]}"
            )
        return behavior if behavior.dim() == 2 else behavior[:, -frames:]
