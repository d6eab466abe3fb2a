"""Let channels that died start again, every second epoch, in a classifier of your own.

python examples/periodic_reset.py: handwritten digits, the same training with and without resets.

The rate is too high at first, and nothing normalizes: ReLU channels die, and what is dead gets no
gradient. What one sees: without resets 3 of 40 channels answer in the end, and the accuracy is that
of guessing; with them 35 answer, and it is .92. Most die again in the first epochs, and are reset
again; as the rate falls they stay alive.
"""
# ruff: noqa: D101, D102 - the methods are Lightning's own

import lightning.pytorch as pl
import torch
from prune_classifier import Digits
from torch import Tensor, nn

import lightning_prune as lp


class NarrowClassifier(pl.LightningModule):
    def __init__(self, lr: float = 0.04, epochs: int = 16) -> None:
        super().__init__()
        self.lr, self.epochs, self.example_input_array = lr, epochs, torch.zeros(1, 1, 8, 8)
        first = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        second = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
        third = nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        self.features, self.head = nn.Sequential(*first, *second, *third), nn.Linear(16, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures).mean((2, 3)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)]


def living_channels(model: nn.Module, pictures: Tensor) -> int:
    """Count the channels, in front of an activation, that these pictures make answer."""
    outputs = lp.layer_outputs(model, pictures[:1])
    usage = lp.ChannelUsage(model.train(), {n: o for n, o in outputs.items() if o.activated})
    with usage:
        model(pictures)
    return sum(stats["used_channels"] for stats in usage.stats().values())


def main(folder: str = "outputs/reset", epochs: int = 16, lr: float = 0.04) -> dict[str, float]:
    """Train without and with resets; return the accuracies."""
    accuracy = {}
    for name, every_n_epochs in (("no resets", None), ("resets", 2)):
        pl.seed_everything(0)
        data, model = Digits(), NarrowClassifier(lr, epochs)
        resetter = lp.ChannelResetter(every_n_epochs, which="unused", reset_type="random")
        trainer = pl.Trainer(max_epochs=epochs, callbacks=resetter, default_root_dir=folder)
        trainer.fit(model, datamodule=data)
        accuracy[name] = trainer.callback_metrics["val/accuracy"].item()
        living = living_channels(model, torch.cat([b[0] for b in data.val_dataloader()]))
        for layer, row in resetter.usage_history["layers"].items():
            if any(row["reset"]):
                print(f"{name}: {layer}: channels reset, epoch by epoch: {row['reset']}")
        print(f"{name}: accuracy {accuracy[name]:.3f}, {living} of 40 channels answer")
    return accuracy


if __name__ == "__main__":
    main()
