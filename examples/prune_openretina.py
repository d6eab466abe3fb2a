"""Prune a core-readout model of openretina with the callbacks: nothing in it knows of pruning.

python examples/prune_openretina.py: a ConvGRU core and Gaussian readouts of two sessions on
simulated cells, two minutes on a CPU (openretina is installed as docs/neural.md says).
"""

import lightning.pytorch as pl
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from openretina.data_io.base import MoviesTrainTestSplit, ResponsesTrainTestSplit
from openretina.data_io.base_dataloader import multiple_movies_dataloaders
from openretina.data_io.cyclers import LongCycler, ShortCycler
from openretina.models.core_readout import UnifiedCoreReadout
from torch.utils.data import DataLoader

import lightning_prune as lp

CELLS = {"mouse_1": 12, "mouse_2": 9}
PARTS = "openretina.modules"
CORE = {
    "_target_": f"{PARTS}.core.gru_core.ConvGRUCore", "_convert_": "object",
    "temporal_kernel_sizes": [9, 5], "spatial_kernel_sizes": [7, 3], "use_gru": True,
    "gru_kwargs": {"rec_channels": 16, "input_kern": 3, "rec_kern": 3},
}  # fmt: skip
READOUT = {
    "_target_": f"{PARTS}.readout.multi_readout.MultiGaussianMaskReadout", "scale": True,
    "bias": True, "gaussian_mean_scale": 6.0, "gaussian_var_scale": 4.0, "positive": True,
    "mask_l1_reg": 0.0, "feature_weights_l1_reg": 0.0,
}  # fmt: skip
SCHEDULE = {  # the default one waits for a metric that the model does not log
    "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "mode": "max", "patience": 5,
    "monitor": "val_evaluation_loss",
}  # fmt: skip


def settings() -> dict[str, DictConfig]:
    """Return the parts of the model and its schedule, as the model takes them."""
    parts = {"core": CORE, "readout": READOUT, "lr_scheduler": SCHEDULE}
    return {name: OmegaConf.create(part) for name, part in parts.items()}


def simulate(cells: int, seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a movie (1, T, 16, 16) of blurred noise and the spikes (N, T) of ON and OFF cells."""
    rng = np.random.default_rng(seed)
    movie = torch.from_numpy(rng.standard_normal((frames, 1, 16, 16), dtype=np.float32))
    movie = torch.nn.functional.avg_pool2d(movie, 3, 1, 1)[:, 0] * 3
    place = torch.arange(16.0)
    x, y = torch.from_numpy(rng.uniform(4, 12, (2, cells, 1)).astype(np.float32))
    spot = torch.exp(-(((place - x) ** 2)[:, None, :] + ((place - y) ** 2)[:, :, None]) / 4)
    drive = torch.einsum("thw,nhw->nt", movie, spot / spot.sum((1, 2), keepdim=True))
    kernel = torch.tensor([0.1, 0.3, 0.6, 0.9, 0.4, -0.5, -0.4, -0.2, -0.1]).flip(0)
    drive = torch.nn.functional.conv1d(drive[:, None], kernel[None, None], padding=8)[:, 0, :frames]
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], (cells, 1)))
    rate = 2 * torch.nn.functional.softplus(2 * sign * drive / drive.std())
    return movie[None].numpy(), rng.poisson(rate).astype(np.float32)


def data(train_frames: int, test_frames: int = 400) -> dict[str, DataLoader]:
    """Return loaders of (session, movie and responses), made by openretina of simulated cells."""
    movies, responses = {}, {}
    for seed, (session, cells) in enumerate(CELLS.items()):
        movie, spikes = simulate(cells, seed, train_frames + test_frames)
        seen, held = slice(train_frames), slice(train_frames, None)
        movies[session] = MoviesTrainTestSplit(train=movie[:, seen], test=movie[:, held])
        responses[session] = ResponsesTrainTestSplit(train=spikes[:, seen], test=spikes[:, held])
    made = multiple_movies_dataloaders(responses, movies, batch_size=8, num_val_clips=4)
    cyclers = {"train": LongCycler(made["train"])}
    cyclers |= {name: ShortCycler(made[name]) for name in ("validation", "test")}
    return {name: DataLoader(cycler, batch_size=None) for name, cycler in cyclers.items()}


def build() -> UnifiedCoreReadout:
    """Return the dense model, as openretina makes it of its configuration."""
    return UnifiedCoreReadout(
        (1, 50, 16, 16), CELLS, hidden_channels=(16, 32), learning_rate=0.01, **settings()
    )


def main(
    folder: str = "outputs/openretina", dense: int = 12, recovery: int = 12, frames: int = 8000
) -> float:
    """Train, mask to half of the MACs, cut, fine-tune; return the correlation of what was saved."""
    pl.seed_everything(0)
    loaders, stages = data(frames), lp.recipes.channel(0.5, dense, recovery, folder=folder)
    trainer = pl.Trainer(
        max_epochs=dense + recovery,
        callbacks=stages,
        default_root_dir=folder,
        plugins=lp.AtomicCheckpointIO(),  # files of plain values, whatever the model remembers
    )
    trainer.fit(build(), loaders["train"], loaders["validation"])
    path = f"{folder}/checkpoints/best_pruned.ckpt"
    loaded = lp.load_pruned(UnifiedCoreReadout, path, **settings())
    return trainer.test(loaded, loaders["test"])[0]["CorrelationLoss3d"]


if __name__ == "__main__":
    main()
