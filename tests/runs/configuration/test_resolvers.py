"""The arithmetic of recipes, in our command line and in one of somebody else's."""

import importlib

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import UnsupportedInterpolationType

from lightning_prune.runs.configuration.resolvers import register_resolvers

RECIPE = "end: ${add:${dense},${part:${recovery},0.75}}\ndense: 12\nrecovery: 12\n"


@pytest.fixture(autouse=True)
def _known_again():
    register_resolvers()
    yield
    register_resolvers()


def test_epochs_follow_the_keys_they_are_made_of():
    cfg = OmegaConf.create(RECIPE)
    assert cfg.end == 21
    cfg.dense, cfg.recovery = 0, 2
    assert cfg.end == 1


def test_the_package_of_configs_brings_it_along():
    for name in ("add", "part"):
        OmegaConf.clear_resolver(name)
    with pytest.raises(UnsupportedInterpolationType):
        _ = OmegaConf.create(RECIPE).end
    importlib.reload(importlib.import_module("conf"))
    assert OmegaConf.create(RECIPE).end == 21
