"""A callback of your own that is told when channels are cut.

python examples/listen_to_pruning.py

Any callback, and the LightningModule itself, may define `on_channels_pruned`. This one keeps a
number per channel of a layer (how strongly the channel answers on average) in step with the layer.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from prune_classifier import DigitClassifier, Digits

from lightning_prune import PhysicalPruner, SequentialActivationMasker


class ChannelStrength(pl.Callback):
    """Follow the mean |activation| of a layer's channels, also across a cut."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.strength: torch.Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch the layer while it trains."""

        def update(module: Any, inputs: Any, output: torch.Tensor) -> None:
            if module.training:
                now = output.detach().abs().mean((0, 2, 3))
                self.strength = now if self.strength is None else self.strength.lerp(now, 0.1)

        pl_module.get_submodule(self.layer).register_forward_hook(update)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: Any
    ) -> None:
        """Cut the own numbers as the layer was cut: the plan says which channels stayed."""
        keep = pruned.plan.keep[self.layer]
        print(f"{self.layer}: {pruned.plan.channels[self.layer]} channels, {len(keep)} stay")
        if self.strength is not None:
            self.strength = self.strength[keep.to(self.strength.device)]


def main(folder: str = "outputs/listen", dense_epochs: int = 4, epochs: int = 8) -> ChannelStrength:
    """Train with the listener behind the stages, and return it."""
    pl.seed_everything(0)
    listener = ChannelStrength("features.3")
    masker = SequentialActivationMasker(dense_epochs, keep_range=(0.25, 0.5))
    stages = [masker, PhysicalPruner(), listener]
    trainer = pl.Trainer(max_epochs=epochs, callbacks=stages, default_root_dir=folder)
    trainer.fit(DigitClassifier(), datamodule=Digits())
    return listener


if __name__ == "__main__":
    main()
