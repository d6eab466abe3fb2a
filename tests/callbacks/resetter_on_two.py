"""Counts of one process and of two: ``python -m tests.callbacks.resetter_on_two FOLDER``."""

import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Subset

from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.runs.trainer.ranks import total
from tests.callbacks.classifiers import patterns
from tests.callbacks.test_channel_resetter import Rectified


class Batches(Rectified):
    """The same 12 batches of 8, whichever process they go to; nothing is learnt at a rate of 0."""

    def __init__(self, lr: float = 0.0) -> None:
        super().__init__(lr=lr)
        with torch.no_grad():  # on the verge: used in some of the batches only
            self.deep.bias[0] = -0.7

    def train_dataloader(self) -> Any:
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        mine = [i for batch in range(rank, 12, ranks) for i in range(8 * batch, 8 * batch + 8)]
        return DataLoader(Subset(patterns(96, 1), mine), batch_size=8)


class Stage(ChannelResetter):
    """Notes what was counted."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        assert self._usage is not None
        counts, forwards = self._usage.read(partial(total, trainer))
        own, _ = self._usage.read()
        self.noted = {"counts": counts, "own": own, "forwards": forwards}


def trainer(folder: Path, stage: ChannelResetter, epochs: int, devices: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=epochs,
        callbacks=[stage],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
    )


def watching() -> Stage:
    return Stage(every_n_epochs=None, threshold=1e-6)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    # The processes that Lightning starts run this file again.
    if "LOCAL_RANK" not in os.environ:
        stage = watching()
        trainer(folder, stage, 1, 1).fit(Batches())
        torch.save({**stage.noted, "history": stage.usage_history}, folder / "one.pt")
    stage = watching()
    run = trainer(folder, stage, 1, 2)
    run.fit(Batches())
    content: dict[str, Any] = {**stage.noted, "history": stage.usage_history}
    run.save_checkpoint(folder / "two.ckpt")
    run.strategy.barrier()
    saved = torch.load(folder / "two.ckpt", weights_only=True)["callbacks"]
    content["saved"] = saved["Stage"]["usage"]["counts"]
    again = watching()
    trainer(folder, again, 2, 2).fit(Batches(), ckpt_path=folder / "two.ckpt", weights_only=True)
    content["resumed"] = again.noted["forwards"]["deep"]
    stage, model = Stage(every_n_epochs=1, min_batches=2), Batches(lr=0.01)
    trainer(folder, stage, 2, 2).fit(model)
    content["resets"] = sum(sum(r["reset"]) for r in stage.usage_history["layers"].values())
    content["parameters"] = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.save(content, folder / f"rank{run.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
