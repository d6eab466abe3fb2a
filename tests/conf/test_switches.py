"""Every switch of the neural-response model builds, and changes what it names."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_prune.cli.build import build
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.runs.configuration.config_folder import config_folder

SWITCHES = sorted(path.stem for path in (config_folder() / "switch").glob("*.yaml"))
ABLATION = "neural_ablation"
# Two of them change two things: their controls change only the first.
CONTROLS = {"weight_norm": "standard_convolutions", "residual_gru": "wide_gru"}


def model(switch: str) -> NeuralResponseModule:
    words = ["model=learned_res_optimized_gru_small", "data=simulated_cells", f"+switch={switch}"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("train", [*words, "output_dir=x"])
    cfg.model.cells, cfg.model.frame_shape = [4, 3], [31, 31]
    torch.manual_seed(0)
    made: NeuralResponseModule = build(cfg.model, "model")
    return made


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    parts = [flat(part, f"{name}.{key}".strip(".")) for key, part in value.items()]
    return {key: part for found in parts for key, part in found.items()}


def changes(ours: NeuralResponseModule, theirs: NeuralResponseModule) -> dict[str, Any]:
    before, after = flat(dict(ours.hparams)), flat(dict(theirs.hparams))
    return {key: value for key, value in after.items() if before.get(key) != value}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_one_thing(name: str):
    ours, theirs = model(CONTROLS.get(name, "none")), model(name)
    allowed = {
        "none": 0,
        "no_norm_affine": 2,  # without a scale nothing can start at zero
        "falling_channels": 2,  # the recurrence reads the last of them
        "grouped_gru": 2,  # and in how many
    }
    assert len(changes(ours, theirs)) == allowed.get(name, 1)
    rates = theirs.eval()(torch.zeros(1, 1, 25, 31, 31), torch.zeros(1, 42))
    assert [rate.shape for rate in rates] == [(1, 4), (1, 3)]


def test_the_ablation_names_every_switch():
    path = config_folder() / "experiment" / f"{ABLATION}.yaml"
    swept = OmegaConf.load(path).hydra.sweeper.params["+switch"].split(",")
    assert sorted(swept) == SWITCHES
    assert swept[0] == "none"
