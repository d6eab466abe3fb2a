"""The subcommands of `python -m lightning_prune`."""

import sys

import pytest

from lightning_prune.__main__ import COMMANDS, main
from lightning_prune.cli import train


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_usage_lists_the_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["lightning-prune", *words])
    main()
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_unknown_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["lightning-prune", "trian"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "unknown command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "seed=1"], ["seed=1"], ["-m", "seed=1,2"]])
def test_overrides_reach_train(words: list[str], monkeypatch: pytest.MonkeyPatch):
    # Lightning starts the other ranks with the overrides alone.
    seen: list[list[str]] = []
    monkeypatch.setattr(train, "main", seen.append)
    monkeypatch.setattr(sys, "argv", ["lightning-prune", *words])
    main()
    assert seen == [[word for word in words if word != "train"]]
