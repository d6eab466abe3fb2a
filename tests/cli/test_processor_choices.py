"""What is chosen on a processor, where it is kept, and that a resumed run never chooses again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from lightning_prune.cli import processor_choices
from lightning_prune.cli.processor_choices import (
    choose_for_processor,
    has_fast_bf16,
    trains_on_cpu,
)
from tests.cli.conftest import FAKE
from tests.cli.fakes import Line


class Fast:
    fast_on_cpu = True


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say what the processor can do."""
    return lambda fast: monkeypatch.setattr(processor_choices, "has_fast_bf16", lambda: fast)


def config(precision: Any = None, enabled: Any = None, accelerator: str = "cpu") -> Any:
    trainer = {"accelerator": accelerator, "precision": precision}
    return OmegaConf.create(
        {"trainer": trainer, "callbacks": {"channels_last": {"enabled": enabled}}}
    )


def chosen(cfg: Any, model: Any = None, stored: Any = None) -> tuple[Any, Any]:
    choose_for_processor(cfg, model or Fast(), stored)
    return cfg.trainer.precision, cfg.callbacks.channels_last.enabled


@pytest.mark.parametrize(
    ("fast", "model", "accelerator", "wanted"),
    [
        (True, Fast(), "cpu", ("bf16-mixed", True)),
        (False, Fast(), "cpu", ("32-true", True)),
        (True, object(), "cpu", ("32-true", False)),
        (True, Fast(), "gpu", ("32-true", False)),
    ],
)
def test_a_new_run_takes_what_is_fastest(processor, fast, model, accelerator, wanted):
    processor(fast)
    assert chosen(config(accelerator=accelerator), model) == wanted


def test_keys_that_are_given_count(processor, capsys):
    processor(True)
    assert chosen(config("32-true", False)) == ("32-true", False)
    assert chosen(config("bf16-mixed", True), object()) == ("bf16-mixed", True)
    assert "no instructions" not in capsys.readouterr().out


@pytest.mark.parametrize("fast", [True, False])
def test_a_resumed_run_keeps_what_was_stored(processor, fast, capsys):
    processor(fast)
    for stored in (("bf16-mixed", True), ("32-true", True), ("32-true", False)):
        assert chosen(config(), Fast(), OmegaConf.to_container(config(*stored))) == stored
    said = capsys.readouterr().out
    assert said.count("no instructions for bf16 matrices") == (0 if fast else 1)


def test_a_run_of_an_earlier_version_goes_on_as_it_was(processor):
    processor(True)
    assert chosen(config(), Fast(), {"trainer": {"precision": "32-true"}}) == ("32-true", False)
    assert chosen(config(), Fast(), {}) == ("32-true", False)


def test_configurations_without_these_keys_are_left_alone(processor):
    processor(True)
    for text in ("trainer: {accelerator: cpu}", "trainer: {}\ncallbacks: {channels_last: null}"):
        cfg = OmegaConf.create(text)
        choose_for_processor(cfg, Fast(), None)
        assert cfg == OmegaConf.create(text)


def test_where_a_trainer_computes(monkeypatch):
    assert trains_on_cpu("cpu")
    assert not trains_on_cpu("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert trains_on_cpu("auto") is not there


@pytest.mark.parametrize(
    ("machine", "capabilities", "wanted"),
    [
        ("x86_64", {"amx_bf16": True}, True),
        ("AMD64", {"amx_bf16": True}, True),
        ("x86_64", {"avx512_bf16": True, "amx_bf16": False}, False),
        ("aarch64", {"bf16": True}, False),
    ],
)
def test_which_processors_are_fast(monkeypatch, machine, capabilities, wanted):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bf16() is wanted


def test_torch_of_earlier_versions_is_asked_for_tiles(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda there=there: there, False)
        assert has_fast_bf16() is there
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not has_fast_bf16()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_choice_is_in_the_folder_of_the_run(
    cli: Callable[..., Any], again: Callable[..., Any], processor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Line, "fast_on_cpu", True, raising=False)
    processor(True)
    outcome = cli(*FAKE, "trainer=cpu", "trainer.precision=null", "dense_epochs=2")
    assert outcome.code == 0, outcome.err
    assert kept(outcome.folder) == ("bf16-mixed", True)
    processor(False)  # as on another machine
    resumed = again(f"resume={outcome.folder}", "dense_epochs=3")
    assert resumed.code == 0, resumed.err
    assert kept(outcome.folder) == ("bf16-mixed", True)
    assert resumed.out.count("no instructions for bf16 matrices") == 1
    assert "changed since then: trainer.precision" not in resumed.out
    more = again(f"resume={outcome.folder}", "dense_epochs=4", "trainer.precision=32-true")
    assert "changed since then: trainer.precision: bf16-mixed -> 32-true" in more.out
    assert kept(outcome.folder) == ("32-true", True)


@pytest.mark.parametrize("words", [["trainer=cpu"], ["trainer.accelerator=cpu"]])
def test_nothing_but_the_format_is_chosen_unasked(
    cli: Callable[..., Any], words, processor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Line, "fast_on_cpu", True, raising=False)
    processor(True)
    outcome = cli(*FAKE, *words, "dense_epochs=1")
    assert kept(outcome.folder) == ("32-true", True)


def kept(folder: Path) -> tuple[Any, Any]:
    cfg = OmegaConf.load(folder / "config.yaml")
    return cfg.trainer.precision, cfg.callbacks.channels_last.enabled
