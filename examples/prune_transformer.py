"""Prune a vision transformer: heads, MLP and residual widths; nothing in it knows of pruning.

python examples/prune_transformer.py: scikit-learn's digits in patches of 2 x 2, a minute on a CPU.
"""
# ruff: noqa: D101, D102 - the methods are Lightning's own

import lightning.pytorch as pl
import torch
from prune_classifier import DigitClassifier, Digits
from torch import Tensor, nn

import lightning_prune as lp


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class DigitTransformer(DigitClassifier):
    def __init__(self, width: int = 64, depth: int = 3, heads: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.features = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patches(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.features(x))[:, 0])

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}


def main(
    folder: str = "outputs/transformer", dense_epochs: int = 30, recovery_epochs: int = 30
) -> float:
    """Train dense, mask, cut, fine-tune; return the accuracy of what was saved and loaded."""
    pl.seed_everything(0)
    epochs = {"dense_epochs": dense_epochs, "recovery_epochs": recovery_epochs}
    # The default strength is for batch norms, which make up for it; here it would stop learning.
    settings = {"mac_target": 0.5, "reg": 1e-4, "folder": folder}
    run = lp.prune(DigitTransformer(), Digits(), "channel", **settings, **epochs)
    loaded = lp.load_pruned(DigitTransformer, run.checkpoint)
    return run.trainer.validate(loaded, datamodule=Digits())[0]["val/accuracy"]


if __name__ == "__main__":
    main()
