"""Penalties of a module's own that have no finite gradient at a masked filter."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lightning_prune import ChannelMasker, PhysicalPruner
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.magnitude import Magnitude
from tests.callbacks.classifiers import Classifier, trainer


class Sparse(Classifier):
    """Divides by the length of every filter, which is 0 / 0 at one of zeros."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        lengths = [
            m.weight.square().sum((2, 3)).sqrt().sum(1) / m.weight.square().sum((1, 2, 3)).sqrt()
            for m in self.modules()
            if isinstance(m, nn.Conv2d)
        ]
        loss: Tensor = super().training_step(batch, batch_idx)
        return loss + 1e-4 * torch.cat(lengths).sum()


@pytest.mark.filterwarnings("ignore:.*the loss was NaN or infinite")
@pytest.mark.parametrize("criterion", [Magnitude(), Fisher()])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_masked_filters_without_a_gradient(criterion: Any, clip: float | None, tmp_path: Path):
    masker = ChannelMasker(
        start_epoch=1, end_epoch=4, pruning_ratio=0.5, criterion=criterion, round_to=1
    )
    stages = [masker, PhysicalPruner()]
    model, widths = Sparse(), []

    class Look(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            widths.append(sum(map(len, masker.plan.keep.values())))

    run = trainer(tmp_path, [*stages, Look()], 6, gradient_clip_val=clip)
    run.fit(model)
    assert stages[1].done
    assert len(set(widths[1:4])) > 1, "masked step by step"
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_clipping_leaves_masked_channels_out(tmp_path: Path):
    """Their gradients move nothing that stays, as in the cut model."""
    found: list[float] = []

    class Measure(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            for name in masker.plan.keep:
                mask = masker.plan.mask(name)
                for member in masker.groups[name].members:
                    if member.role == "producer":
                        rows = pl_module.get_submodule(member.layer).weight.grad
                        found.append(rows[~mask].abs().max().item())

    masker = ChannelMasker(start_epoch=0, end_epoch=1, pruning_ratio=0.5, round_to=1)
    stages = [masker, PhysicalPruner(), Measure()]
    trainer(tmp_path, stages, 3, gradient_clip_val=0.1).fit(Classifier())
    assert len(found) > 4
    assert max(found) == 0
