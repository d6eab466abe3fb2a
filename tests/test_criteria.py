"""Every criterion of the command line has a public name."""

from omegaconf import OmegaConf

from lightning_prune import criteria
from lightning_prune.runs.configuration.config_folder import config_folder


def test_every_configured_criterion_is_public():
    files = sorted((config_folder() / "criterion").glob("*.yaml"))
    named = {str(OmegaConf.load(path)["_target_"]).rpartition(".")[2] for path in files}
    assert named | {"Criterion", "Evidence"} == set(criteria.__all__)
    assert all(issubclass(getattr(criteria, name), criteria.Criterion) for name in named)
