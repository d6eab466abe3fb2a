"""The command with which a run was started, kept in its folder."""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from lightning_prune.errors import ConfigError
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.files.write_json import write_json
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.runs.say import say

COMMAND = "command.json"
# Hydra's own words that say where a run is, and not how.
PLACE = re.compile(r"^\+*hydra([./](run|sweep|sweeper|launcher|mode)\b)")
_RESUME = re.compile(r"^\+*resume=")
_OVERRIDE = re.compile(r"[^\s-][^\n]*")


@dataclass(frozen=True)
class RunCommand:
    """What a run was asked to do: not where, and not whether it was resumed.

    Hydra keeps the same in `.hydra`, but it writes those files again at every start, and a kill in
    that moment leaves them empty: the run would continue without its overrides.

    Attributes:
        task: The overrides.
        hydra: Those of Hydra's own settings.
        cwd: Where it was started.
        config_dir: The folder given as `--config-dir`, or None.
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
        path = folder / COMMAND
        if path.is_file():
            return cls._kept(path, folder)
        path = folder / ".hydra" / "hydra.yaml"
        if not path.is_file():
            return None
        try:
            return cls._checked(cls._of(read_yaml(path)["hydra"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"resume={folder}: {path} cannot be read ({type(error).__name__}: {error}), and "
                f"there is no {COMMAND}: give the run's own command again"
            ) from error

    @classmethod
    def _kept(cls, path: Path, folder: Path) -> "RunCommand":
        """Read `command.json`, of this version or another."""
        needed = [field.name for field in fields(cls)]
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}, no object")
            missing = [name for name in needed if name not in content]
            if missing:
                raise ValueError(f"it has no {' and no '.join(missing)}")
            more = sorted(content.keys() - set(needed))
            if more:
                say(f"{path} is of another version: {', '.join(more)} in it has no meaning here")
            return cls._checked(cls(**{name: content[name] for name in needed}))
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"resume={folder}: {path} cannot be used ({reason or type(error).__name__}). It is "
                "damaged or of another version: give the run's own command again, with "
                f"hydra.run.dir={folder} resume={folder}"
            ) from error

    @classmethod
    def _checked(cls, command: "RunCommand") -> "RunCommand":
        """Return it, if its parts are of the right types and its words are overrides.

        Raises:
            ValueError: they are not.
        """
        for name in ("task", "hydra"):
            words = getattr(command, name)
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"{name} is no list of words")
            options = [word for word in words if not _OVERRIDE.match(word)]
            if options:  # Hydra has options that run what they name
                raise ValueError(f"{options[0]!r} is no override")
        if not isinstance(command.cwd, str) or not isinstance(command.config_dir, str | None):
            raise ValueError("cwd or config_dir is no text")
        return command

    @rank_zero_only
    def keep(self, folder: Path) -> None:
        """Write it into a folder, as one that this user gave."""
        write_json(folder / COMMAND, asdict(self))
        seal(folder / COMMAND)

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
