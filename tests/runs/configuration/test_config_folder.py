"""Where the configs are in a checkout, and what is said where there are none."""

from pathlib import Path

import pytest

from lightning_prune.runs.configuration import config_folder as module


def test_checkout():
    folder = module.config_folder()
    assert (folder / "train.yaml").is_file()
    assert folder.name == "conf"


def test_packaged_configs_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "lightning_prune"
    for folder in (package / "conf", tmp_path / "conf"):
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
    monkeypatch.setattr(module, "PACKAGE", package)
    assert module.config_folder() == package / "conf"
    (package / "conf" / "train.yaml").unlink()
    assert module.config_folder() == tmp_path / "conf"


def test_a_broken_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "lightning_prune")
    with pytest.raises(FileNotFoundError, match="reinstall lightning-prune"):
        module.config_folder()
