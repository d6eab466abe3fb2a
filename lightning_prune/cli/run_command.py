"""The command with which a run was started, kept in its folder."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from lightning_prune.cli.errors import ConfigError
from lightning_prune.cli.read_json import read_json
from lightning_prune.report.files import write_json

COMMAND = "command.json"
# Hydra's own words that say where a run is, and not how.
PLACE = re.compile(r"^\+*hydra([./](run|sweep|sweeper|launcher|mode)\b)")
_RESUME = re.compile(r"^\+*resume=")


@dataclass(frozen=True)
class RunCommand:
    """What a run was asked to do: not where, and not whether it was taken up.

    Hydra keeps the same in `.hydra`, but it writes those files anew at every start, and a kill in
    that moment leaves them empty: the run would go on without its overrides.

    Attributes:
        task: the overrides.
        hydra: those of Hydra's own settings.
        cwd: where it was started.
        config_dir: the folder given as `--config-dir`, or None.
    """

    task: list[str]
    hydra: list[str]
    cwd: str
    config_dir: str | None

    @classmethod
    def current(cls) -> "RunCommand":
        """Return that of this process."""
        return cls._of(OmegaConf.to_container(OmegaConf.structured(HydraConfig.get())))

    @classmethod
    def read(cls, folder: Path) -> "RunCommand | None":
        """Return that of the run in a folder; None: no run was started there.

        Raises:
            ConfigError: it cannot be read.
        """
        kept = read_json(folder / COMMAND)
        if kept is not None:
            return cls(**kept)
        path = folder / ".hydra" / "hydra.yaml"
        if not path.is_file():
            return None
        try:
            return cls._of(yaml.safe_load(path.read_text())["hydra"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"resume={folder}: {path} cannot be read ({type(error).__name__}: {error}), and "
                f"there is no {COMMAND}: give the run's own command again"
            ) from error

    @rank_zero_only
    def keep(self, folder: Path) -> None:
        """Write it into a folder."""
        write_json(folder / COMMAND, asdict(self))

    @classmethod
    def _of(cls, hydra: Any) -> "RunCommand":
        sources = hydra["runtime"]["config_sources"]
        given = [one["path"] for one in sources if one["provider"] == "command-line"]
        own, task = hydra["overrides"]["hydra"], hydra["overrides"]["task"]
        return cls(
            [word for word in map(str, task) if not _RESUME.match(word)],
            [word for word in map(str, own) if not PLACE.match(word)],
            hydra["runtime"]["cwd"],
            next(iter(given), None),
        )
