from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lightning_prune.cli.own_class import own_class
from lightning_prune.errors import ConfigError
from tests.cli.conftest import FAKE


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


def test_a_model_beside_the_command_is_trained(cli: Callable[..., Any], tmp_path: Path):
    (tmp_path / "beside_the_command.py").write_text(
        "from tests.cli.fakes import Line\n\n\nclass Mine(Line):\n    pass\n"
    )
    words = ["model._target_=beside_the_command.Mine", "dense_epochs=1", "trainer=cpu"]
    outcome = cli(*FAKE, *words)
    assert outcome.code == 0, outcome.err
    assert "model     Mine" in outcome.out
