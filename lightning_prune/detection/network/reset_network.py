"""YOLOv8 whose deeper stages count their channels and can reset them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch.optim import Optimizer

from lightning_prune.detection.network.architecture import Architecture
from lightning_prune.detection.network.csp_reset import CSPReset
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.surgery.reinitialize import ResetType


class YOLOv8Reset(YOLOv8):
    """A ``YOLOv8`` with ``CSPReset`` blocks in the backbone's stages p3, p4 and p5.

    It loads the weights of a ``YOLOv8``, and computes the same where ``topk`` is None.

    Args:
        size: One of n, s, m, l, x.
        num_classes: Number of classes.
        in_channels: Channels of the image.
        widths: Channels of p1..p5 instead of those of ``size``.
        depths: Bottlenecks per CSP block instead of those of ``size``.
        topk: Fraction of the places that each output channel of these blocks keeps; None: all.
        threshold: Mean magnitude above which a channel is used.
        architecture: What else is not as published; see ``YOLOv8``.

    Raises:
        ValueError: an argument is out of range.

    Source: the project's CSP_Reset guide.

    >>> network = YOLOv8Reset("n", num_classes=2)
    >>> list(network.get_channel_usage_report())
    ['backbone.p3.csp', 'backbone.p4.csp', 'backbone.p5.csp']
    """

    def __init__(
        self,
        size: str = "n",
        num_classes: int = 80,
        in_channels: int = 3,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        topk: float | None = None,
        threshold: float = 1e-6,
        architecture: Architecture | Mapping[str, Any] | None = None,
    ):
        block = partial(CSPReset, topk=topk, threshold=threshold)
        super().__init__(size, num_classes, in_channels, widths, depths, block, architecture)

    def reset_used_channels(
        self, reset_type: ResetType = "random", optimizers: Iterable[Optimizer] = ()
    ) -> None:
        """Reset the used channels of all ``CSPReset`` blocks."""
        optimizers = list(optimizers)
        for module in self.modules():
            if isinstance(module, CSPReset):
                module.reset_used_channels(reset_type, optimizers)

    def get_channel_usage_report(self) -> dict[str, dict[str, Any]]:
        """Return the usage statistics of every ``CSPReset`` block, by its name."""
        return {
            name: module.get_channel_usage_stats()
            for name, module in self.named_modules()
            if isinstance(module, CSPReset)
        }
