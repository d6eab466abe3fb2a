from pathlib import Path

import pytest
from torch import nn

from lightning_prune.cli.own_class import own_class
from lightning_prune.errors import ConfigError


def test_a_file_beside_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_network_of_own_class.py").write_text(
        "from torch import nn\ndef make(): return nn.ReLU()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(own_class("my_network_of_own_class.make")(), nn.ReLU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.Net", "was not found"),
        ("torch.nn.Nothing", "was not found"),
        ("Net", "was not found"),
        ("", "was not found"),
        ("torch.pi", "no class and no function"),
    ],
)
def test_refusals(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        own_class(name)
