"""The CSP block that knows which of its output channels are used, and can reset them."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.arguments import TopK, UsageThreshold
from lightning_prune.detection.network.blocks import CSP
from lightning_prune.functional.top_k import keep_strongest
from lightning_prune.observe.usage_counter import UsageCounter
from lightning_prune.observe.used_channels import UsedChannels, set_used
from lightning_prune.surgery.cut import Replacement
from lightning_prune.surgery.reinitialize import (
    ResetType,
    channel_tensors,
    cut_originals,
    original_values,
    reset_channels,
)
from lightning_prune.validation import validated

ORIGINALS = "originals."
"""Where the original rows are in the state dict of a block."""

COUNTS = ("channel_usage_count", "channel_usage_forwards")
"""Where the counts are in the state dict of a block: of each channel, and of all passes."""


class CSPReset(CSP):
    """A CSP block whose output channels are counted in training, and can be reset.

    A channel is used in a forward pass where the mean magnitude of the block's output exceeds the
    threshold. What a reset changes is the row of the last convolution and its norm.

    The original rows are those that the block was made with, or those of an ordinary ``CSP`` whose
    weights are loaded. They stay on the CPU, are part of the state dict (``originals.*``: as large
    as the last convolution) and follow cuts of channels. So do the counts
    (``channel_usage_count``): a checkpoint continues with them.

    Args:
        in_ch: Channels read.
        out_ch: Channels made, even.
        n: Number of bottlenecks.
        add: Bottlenecks add their input to their output.
        topk: Fraction of the places that each channel keeps per sample, those of the largest
            magnitudes, in (0, 1]; None: all.
        threshold: Mean magnitude above which a channel is used, at least 0.

    Attributes:
        track_channels: Whether training passes are counted.
        threshold: As given; it may be changed between two passes.

    Raises:
        ValueError: an argument is out of range.

    Source: the project's CSP_Reset guide, whose name ``CSP_Reset`` is kept as an alias.

    >>> _ = torch.manual_seed(0)
    >>> block = CSPReset(in_ch=8, out_ch=4)
    >>> _ = block(torch.randn(2, 8, 6, 6))
    >>> block.get_channel_usage_stats()["used_channels"], sorted(block.used_channels)
    (4, [0, 1, 2, 3])
    """

    @validated
    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        n: int = 1,
        add: bool = True,
        topk: TopK = None,
        threshold: UsageThreshold = 1e-6,
    ) -> None:
        super().__init__(in_ch, out_ch, n, add)
        self.topk = topk
        self.track_channels = True
        self._usage = UsageCounter(out_ch, threshold)
        self._originals = original_values(self.conv3.conv, self.conv3.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_ch, H, W) to (B, out_ch, H, W)."""
        out = super().forward(x)
        if self.topk is not None:
            out = keep_strongest(out, self.topk)
        if self.track_channels and self.training:
            self._usage.update(out)
        return out

    # --- usage ------------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """Return the mean magnitude above which a channel is used, for the passes to come."""
        return self._usage.threshold

    @threshold.setter
    @validated
    def threshold(self, value: UsageThreshold) -> None:
        self._usage.threshold = value

    @property
    def channel_usage_count(self) -> Tensor:
        """Return the passes in which each channel was used, (C,) int64; zero it to forget them."""
        return self._usage.counts

    @channel_usage_count.setter
    def channel_usage_count(self, value: Tensor) -> None:
        self._usage.counts.copy_(value)

    @property
    def used_channels(self) -> set[int]:
        """Return the channels used at least once, as a set of now; changing it changes the counts.

        What is taken out counts as never used, what is added as used in one pass.
        """
        return UsedChannels(self._usage)

    @used_channels.setter
    def used_channels(self, value: Iterable[int]) -> None:
        set_used(self._usage, value)

    def get_channel_usage_stats(self) -> dict[str, Any]:
        """Return total_channels, used_channels, usage_ratio, used_channel_indices, usage_count."""
        return self._usage.stats()

    def enable_channel_tracking(self, enable: bool = True) -> None:
        """Count training passes from now on, or count them no longer; the counts stay."""
        self.track_channels = enable

    # --- reset ------------------------------------------------------------------------------

    @validated
    def reset_used_channels(
        self, reset_type: ResetType = "random", optimizers: Iterable[Optimizer] = ()
    ) -> None:
        """Reset the channels that were used; their counts stay.

        Args:
            reset_type: ``random``, ``original`` or ``zero``.
            optimizers: Those that train the block: what they remember of these channels is
                cleared. Without them momentum returns a channel to where it was.

        Warns:
            UserWarning: outside training, without tracking, with no channel used or with all.
        """
        used = sorted(self.used_channels)
        if not self.training or not self.track_channels:
            state = "is in eval mode" if not self.training else "has its tracking disabled"
            _warn(
                f"the block {state}: what counts as used was seen before; call .train() and "
                "enable_channel_tracking() so that resets follow what happens"
            )
        if not used:
            _warn(
                f"no channel counts as used in {self._usage.forwards} training passes, so none is "
                "reset: enable tracking, train first, or lower the threshold "
                f"(threshold={self._usage.threshold})"
            )
        elif len(used) == self._usage.channels:
            _warn(
                f"all {len(used)} channels count as used, so the whole layer is reset: raise the "
                f"threshold (threshold={self._usage.threshold}) to find weak channels"
            )
        self._reset(used, reset_type, optimizers)

    @validated
    def reset_all_channels(
        self, reset_type: ResetType = "random", optimizers: Iterable[Optimizer] = ()
    ) -> None:
        """Reset all channels, used or not; see ``reset_used_channels``."""
        self._reset(list(range(self._usage.channels)), reset_type, optimizers)

    def _reset(
        self, channels: list[int], reset_type: ResetType, optimizers: Iterable[Optimizer]
    ) -> None:
        reset_channels(
            self.conv3.conv,
            torch.tensor(channels, dtype=torch.int64),
            reset_type,
            norm=self.conv3.norm,
            originals=self._originals,
            optimizers=optimizers,
        )

    # --- what lives beside the weights ------------------------------------------------------

    def follow_cut(self, replaced: Mapping[str, Replacement]) -> None:
        """Cut counts and original rows with the last convolution; called by ``cut_channels``."""
        weight = replaced.get("conv3.conv.weight")
        if weight is None:
            return
        if 0 in weight.kept:
            self._usage.keep(weight.kept[0])
        self._originals = cut_originals(self._originals, self.conv3.conv, weight)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in self._originals.items():
            destination[prefix + ORIGINALS + name] = value
        counts = (self._usage.counts, torch.tensor(self._usage.forwards))
        for name, value in zip(COUNTS, counts, strict=True):
            destination[prefix + name] = value.detach().clone()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        own = channel_tensors(self.conv3.conv, self.conv3.norm)
        for name in own:
            place = name if name.startswith("norm.") else f"conv.{name}"
            kept = state_dict.pop(prefix + ORIGINALS + name, None)
            loaded = state_dict.get(f"{prefix}conv3.{place}")
            if kept is not None and loaded is not None and kept.shape != loaded.shape:
                arguments[-1].append(
                    f"{prefix + ORIGINALS + name} is {tuple(kept.shape)} and the layer's is "
                    f"{tuple(loaded.shape)}: the file was altered"
                )
                continue
            first = loaded if kept is None else kept
            if first is not None and first.shape == own[name][0].shape:
                self._originals[name] = first.detach().to("cpu", copy=True)
        width = len(self._originals["weight"])
        if width != self._usage.channels:  # the file is of another width than this block was
            self._usage = UsageCounter(width, self._usage.threshold)
        counts, forwards = (state_dict.pop(prefix + name, None) for name in COUNTS)
        if counts is not None and len(counts) == width:  # weights from elsewhere have none
            self._usage.counts = counts.detach().to(self._usage.counts.device, copy=True)
            self._usage.forwards = int(counts.max()) if forwards is None else int(forwards)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


CSP_Reset = CSPReset
"""The name of the guide."""


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
