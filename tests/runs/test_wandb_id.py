"""One identity per folder, and only where none was given."""

from pathlib import Path

from omegaconf import OmegaConf

from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.wandb_id import keep_wandb_id


def test_the_folder_keeps_the_identity(tmp_path: Path):
    shipped = OmegaConf.load(config_folder() / "logger/wandb.yaml")
    cfg = OmegaConf.create({"output_dir": str(tmp_path), "logger": shipped})
    keep_wandb_id(cfg)
    first = cfg.logger.wandb.id
    assert (tmp_path / "wandb_id.txt").read_text() == first
    assert first.isalnum()
    cfg.logger.wandb.id = None
    keep_wandb_id(cfg)
    assert cfg.logger.wandb.id == first


def test_others_are_left_alone(tmp_path: Path):
    loggers = {
        "mine": {"_target_": "lightning.pytorch.loggers.WandbLogger", "id": "own"},
        "csv": {"_target_": "a.CSVLogger", "id": None},
        "none": None,
    }
    cfg = OmegaConf.create({"output_dir": str(tmp_path), "logger": loggers})
    keep_wandb_id(cfg)
    assert OmegaConf.to_container(cfg.logger) == loggers
    assert not list(tmp_path.iterdir())
    keep_wandb_id(OmegaConf.create({"output_dir": str(tmp_path), "logger": None}))
