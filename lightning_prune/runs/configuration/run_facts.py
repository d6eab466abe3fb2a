"""What the folder of a run says about its configuration."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.runs.configuration.renamed_keys import translated, translated_words

# Overrides of a run that the next one needs too: where it runs, on what data, which network.
_LASTING = re.compile(r"(data|trainer|logger)[.=]|seed=|model\.(?!weights=|lr=|schedule)")


@dataclass(frozen=True)
class RunFacts:
    """Configuration and metrics of a run of `train`; all empty where the folder has none.

    Attributes:
        folder: The run's folder.
        config: Content of `config.yaml`, with the names that its keys have now.
        overrides: Its command line, without options.
    """

    folder: Path
    config: dict[str, Any]
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "RunFacts":
        """Read them; of a folder named `checkpoints`, those of the folder that holds it."""
        folder = folder.resolve()
        folder = folder.parent if folder.name == "checkpoints" else folder
        config = config_of(folder)
        words = _yaml(folder / ".hydra" / "overrides.yaml")
        words = [str(word) for word in words] if isinstance(words, list) else []
        return cls(folder, translated(config), tuple(translated_words(words, config)))

    def get(self, key: str) -> Any:
        """Return the value at a dotted key, None where there is none."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    @property
    def lasting_overrides(self) -> tuple[str, ...]:
        """Return the overrides that say on what data, where and with which network it ran."""
        return tuple(word for word in self.overrides if _LASTING.match(word.lstrip("+")))

    def metric(self, name: str) -> dict[int, float]:
        """Return the last value of a metric at each epoch, from `metrics.csv`."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row.get("epoch"), row.get(name)) for row in csv.DictReader(file)]
        return {int(float(epoch)): float(value) for epoch, value in rows if epoch and value}


def config_of(folder: Path) -> dict[str, Any]:
    """Return the content of a run's `config.yaml` as it was written; empty: there is none."""
    content = _yaml(folder / "config.yaml")
    return content if isinstance(content, dict) else {}


def _yaml(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (OSError, FileError):
        return None
