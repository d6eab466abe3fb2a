"""Prune a model of openretina, which knows nothing of pruning: a ConvGRU core, two sessions.

python examples/prune_openretina.py: simulated cells, five minutes on a CPU. docs/openretina.md says
how openretina is installed.
"""

import lightning.pytorch as pl
import torch
from omegaconf import OmegaConf
from openretina.data_io.base_dataloader import get_movie_dataloader
from openretina.data_io.cyclers import LongCycler, ShortCycler
from openretina.models.core_readout import UnifiedCoreReadout
from torch import Tensor
from torch.nn.functional import avg_pool2d, softplus
from torch.utils.data import DataLoader

import lightning_prune as lp

PIXELS, CELLS = torch.arange(16.0), {"mouse_1": 12, "mouse_2": 9}
PARTS = """{in_shape: [1, 50, 16, 16], hidden_channels: [16, 32], learning_rate: 0.01,
core: {_target_: openretina.modules.core.gru_core.ConvGRUCore, _convert_: object, use_gru: true,
  temporal_kernel_sizes: [9, 5], spatial_kernel_sizes: [7, 3],
  gru_kwargs: {rec_channels: 16, input_kern: 3, rec_kern: 3}},
readout: {_target_: openretina.modules.readout.multi_readout.MultiGaussianMaskReadout,
  scale: true, bias: true, gaussian_mean_scale: 6.0, gaussian_var_scale: 4.0, positive: true,
  mask_l1_reg: 0.0, feature_weights_l1_reg: 0.0},
lr_scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, mode: max, patience: 5,
  monitor: val_evaluation_loss}}"""


def simulate(cells: int, frames: int, seed: int, part: int) -> tuple[Tensor, Tensor]:
    """Return a movie (1, T, 16, 16) of blurred noise and the spikes (T, N) of ON and OFF cells."""
    noise = torch.Generator().manual_seed(1000 * part + seed)
    movie = avg_pool2d(torch.randn(frames, 1, 16, 16, generator=noise), 3, 1, 1)[:, 0]
    own = torch.Generator().manual_seed(seed)  # places and signs are those of the session
    x, y, sign = torch.rand(3, cells, 1, 1, generator=own) * 8 + 4
    spots = torch.exp(-((PIXELS - x).square() + (PIXELS[:, None] - y).square()) / 4)
    drive = torch.einsum("thw,nhw->tn", movie, spots) * (sign[:, 0, 0] - 8).sign()
    drive = drive.roll(2, 0) - 0.7 * drive.roll(5, 0)
    return movie[None], torch.poisson(2 * softplus(2 * drive / drive.std()), noise)


def load(split: str, frames: int) -> DataLoader:
    """Return batches of (session, movie and responses), as openretina makes them of arrays."""
    part, cycler = (0, LongCycler) if split == "train" else (1, ShortCycler)
    sizes = {"scene_length": 100, "chunk_size": (50, 100)[part], "batch_size": 8, "split": split}
    found = {
        session: get_movie_dataloader(*simulate(cells, frames, seed, part), **sizes)
        for seed, (session, cells) in enumerate(CELLS.items())
    }
    return DataLoader(cycler(found), batch_size=None)


def main(folder: str = "outputs", dense: int = 12, recovery: int = 12, frames: int = 8000) -> float:
    """Train, mask to half of the MACs, cut, fine-tune; return the correlation of what was saved."""
    pl.seed_everything(0)
    parts, val = OmegaConf.create(PARTS), load("validation", 800)
    stages = lp.recipes.neural(0.5, dense, recovery, folder=folder)
    # Stores plain values, which nothing has to execute.
    options = {"plugins": lp.AtomicCheckpointIO(), "default_root_dir": folder}
    trainer = pl.Trainer(max_epochs=dense + recovery, callbacks=stages, **options)
    trainer.fit(UnifiedCoreReadout(n_neurons_dict=CELLS, **parts), load("train", frames), val)
    path = f"{folder}/checkpoints/best_pruned.ckpt"
    pruned = lp.load_pruned(UnifiedCoreReadout, path, **parts)
    return trainer.validate(pruned, val)[0]["val_evaluation_loss"]


if __name__ == "__main__":
    main()
