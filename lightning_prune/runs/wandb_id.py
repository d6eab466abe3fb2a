"""The identity of a Weights & Biases run, kept in the run's folder."""

import uuid
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from lightning_prune.files import write_bytes

_FILE = "wandb_id.txt"


@rank_zero_only
def keep_wandb_id(cfg: DictConfig) -> None:
    """Fill in `id` of a W&B logger, so that a resumed run continues under the same identity.

    Args:
        cfg: The whole configuration; only a logger whose `id` is null is changed.
    """
    for node in (cfg.get("logger") or {}).values():
        if node is None or not str(node.get("_target_", "")).endswith("WandbLogger"):
            continue
        if "id" not in node or node.id is not None:
            continue
        path = Path(cfg.output_dir, _FILE)
        if not path.is_file():
            # From the system's randomness: the run's own stays untouched.
            write_bytes(path, uuid.uuid4().hex[:8].encode())
        node.id = path.read_text().strip()
