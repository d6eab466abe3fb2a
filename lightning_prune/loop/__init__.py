"""Floor 3: pruning in plain PyTorch loops, configured by one JSON file. No Lightning."""

from lightning_prune.loop.pruning import Pruning as Pruning
