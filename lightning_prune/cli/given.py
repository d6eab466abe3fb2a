"""What stood on the command line of this run."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


def given_overrides() -> list[str]:
    """Return the overrides of this process, without those of Hydra's own settings."""
    if not HydraConfig.initialized():
        return []
    # Unresolved: a word like output_dir=${...} is text here, not a reference.
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(word) for word in words or []]


def was_given(key: str) -> bool:
    """Return whether an override sets this key."""
    return any(word.lstrip("+").partition("=")[0] == key for word in given_overrides())
