"""What a ``ModelCheckpoint`` knows of the files of a run."""

from lightning.pytorch.callbacks import ModelCheckpoint

RUN_STATE = (
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "current_score",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
    "_last_global_step_saved",
    "_last_checkpoint_saved",
)
"""The attributes in which it is kept."""


def replaces_files(callback: ModelCheckpoint) -> bool:
    """Return whether a file of the same name is replaced: otherwise a number is added."""
    return not callback._enable_version_counter
