"""Look at what a command line would compose, before Hydra does it in earnest."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_prune.cli.near_keys import key_paths
from lightning_prune.errors import ConfigError
from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_yaml import read_yaml
from lightning_prune.runs.configuration.config_folder import config_folder

# What a composition may end with: Hydra raises plain ValueErrors too, YAML errors have no parent.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError)


def make_loader(config_dir: str | None = None) -> ConfigLoaderImpl:
    """Return a loader of the shipped configs, and of those in a folder of the user's.

    Nothing global is changed, so it may be asked before Hydra starts.
    """
    version.setbase("1.3")
    search_path = create_config_search_path(str(config_folder()))
    if config_dir is not None and Path(config_dir).is_dir():
        anchor = SearchPathQuery(provider="schema", path=None)
        search_path.prepend("command-line", f"file://{Path(config_dir).absolute()}", anchor)
    loader = _Loader(config_search_path=search_path)
    loader.repository = _CarefulRepository(search_path)
    return loader


class _Loader(ConfigLoaderImpl):
    """Look up the choices of a group once: Hydra reads its main configs again for each question."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._options: dict[str, list[str]] = {}

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Return the names of a group's configs."""
        if results_filter is not ObjectType.CONFIG or config_name is not None or overrides:
            return super().get_group_options(group_name, results_filter, config_name, overrides)
        if group_name not in self._options:
            self._options[group_name] = super().get_group_options(group_name)
        return list(self._options[group_name])


class _CarefulRepository(ConfigRepository):
    """Read the user's own YAML with care first: aliases of a few lines can stand for a billion."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load a config.

        Raises:
            ConfigError: its file is no YAML, or one that nobody could read.
        """
        for source in self.get_sources():
            if source.scheme() == "file" and source.provider != "main":
                path = Path(source.path, source._normalize_file_name(config_path))
                if path.is_file():
                    _read_carefully(path)
        try:
            return super().load_config(config_path)
        except (OmegaConfBaseException, ValueError) as error:
            if isinstance(error, HydraException):
                raise
            raise ConfigError(f"{config_path}.yaml: {str(error).splitlines()[0]}") from error


def _read_carefully(path: Path) -> None:
    try:
        read_yaml(path)
    except FileError as error:
        raise ConfigError(str(error)) from error


def config_tree(loader: ConfigLoaderImpl, words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration with some overrides, without what is Hydra's own.

    Overrides that do not compose are left out, so that the others can be looked at.
    """
    tree = OmegaConf.to_container(_composed(loader, words), resolve=False)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items() if key != "hydra"}


def known_paths(loader: ConfigLoaderImpl, words: Sequence[str]) -> list[str]:
    """Return the path of every key that the configuration has with some overrides.

    Without a recipe the keys of all recipes follow: one of them may have been meant.
    """
    tree = config_tree(loader, words)
    paths = list(key_paths(tree))
    if not tree.get("pruning"):
        for name in loader.get_group_options("pruning"):
            paths += option_paths(loader, "pruning", name)
    return [path for path in dict.fromkeys(paths) if not path.rpartition(".")[2].startswith("_")]


def option_paths(loader: ConfigLoaderImpl, group: str, option: str) -> list[str]:
    """Return the path of every key of one option, those of its defaults list among them."""
    try:
        with warnings.catch_warnings():  # a file of a group need not say where its own keys stand
            warnings.simplefilter("ignore")
            tree = loader.load_configuration(f"{group}/{option}", [], RunMode.RUN)
    except COMPOSITION_ERRORS:  # it changes choices of the root, or is not to be read
        return []
    return [
        path for path in key_paths(OmegaConf.to_container(tree)) if path.startswith(f"{group}.")
    ]


def _composed(loader: ConfigLoaderImpl, words: Sequence[str]) -> DictConfig:
    for some in (list(words), [word for word in words if _chooses(loader, word)], []):
        try:
            return loader.load_configuration(
                "train", some, RunMode.MULTIRUN, validate_sweep_overrides=False
            )
        except ConfigError:
            raise
        except COMPOSITION_ERRORS:
            continue
    return OmegaConf.create({})


def _chooses(loader: ConfigLoaderImpl, word: str) -> bool:
    """Return whether an override chooses an option of a group, and one that is there."""
    group, _, option = word.lstrip("+").partition("=")
    return option in loader.get_group_options(group.partition("@")[0])
