"""Reset the dormant channels of those layers only that use too few, in a plain PyTorch loop.

python examples/adaptive_reset.py: handwritten digits, no Lightning in the loop.

A layer whose usage ratio falls below the threshold gets new weights for the channels that no batch
of the epoch used, and is tracked no longer. What one sees: within three epochs every layer falls
below one half and starts again; the network, which was dead, then learns and reaches .96.
"""

import torch
from periodic_reset import NarrowClassifier
from prune_classifier import Digits
from torch import nn

import lightning_prune as lp


def adaptive_reset(
    model: nn.Module,
    tracked: dict[str, lp.ChannelUsage],
    optimizer: torch.optim.Optimizer,
    threshold: float,
) -> list[str]:
    """Reset the unused channels of layers below the threshold; return the layers' names."""
    reset = []
    for name, usage in tracked.items():
        if not usage.tracks:
            continue
        stats = usage.stats()[name]
        print(f"  {name}: {stats['used_channels']} of {stats['total_channels']} channels used")
        if stats["usage_ratio"] < threshold:
            layer, norm = usage.layer_and_norm(model, name)
            unused = torch.nonzero(stats["usage_count"] == 0).flatten()
            # The optimizer forgets these rows too: momentum would drive them back to death.
            lp.reset_channels(layer, unused, "random", norm=norm, optimizers=[optimizer])
            usage.stop()  # its hook is gone: this layer costs nothing more
            print(f"  {name}: {len(unused)} channels start again")
            reset.append(name)
        usage.clear()  # the next epoch is judged by itself
    return reset


def main(folder: str = "", epochs: int = 16, lr: float = 0.04, threshold: float = 0.5) -> list[str]:
    """Train, look at the usage after every epoch; return the layers that were reset."""
    torch.manual_seed(0)
    data, model = Digits(), NarrowClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    outputs = lp.layer_outputs(model, model.example_input_array)
    tracked = {n: lp.ChannelUsage(model, {n: o}) for n, o in outputs.items() if o.activated}
    for usage in tracked.values():
        usage.start()
    reset = []
    for epoch in range(epochs):
        for pictures, labels in data.train_dataloader():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(pictures), labels).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():  # in eval mode nothing counts
            right = [model.eval()(x).argmax(1) == y for x, y in data.val_dataloader()]
        print(f"epoch {epoch}: accuracy {torch.cat(right).float().mean():.3f}")
        reset += adaptive_reset(model, tracked, optimizer, threshold)
    return reset


if __name__ == "__main__":
    main()
