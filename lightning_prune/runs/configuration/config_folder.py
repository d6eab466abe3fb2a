"""Where the shipped Hydra configuration lies."""

from pathlib import Path

from lightning_prune.runs.configuration.resolvers import register_resolvers

PACKAGE = Path(__file__).resolve().parents[2]
# At import: the jobs of a sweep may run in processes that read no command line.
register_resolvers()


def config_folder() -> Path:
    """Return the folder of the shipped Hydra configs.

    An installed wheel carries it as `lightning_prune/conf`; in a checkout it is `conf/` beside the
    package.

    Raises:
        FileNotFoundError: if neither exists, so the installation is broken.
    """
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no conf/train.yaml in {PACKAGE} or {PACKAGE.parent}: reinstall lightning-prune, "
        "or run from a complete checkout"
    )
