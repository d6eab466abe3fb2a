from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lightning_prune.cli.loader import make_loader


def test_choices_of_groups_are_those_that_hydra_finds():
    loader = make_loader()
    for group in ("pruning", "model", "stage", "no_such_group", "model.lr"):
        expected = ConfigLoaderImpl.get_group_options(loader, group)
        first = loader.get_group_options(group)
        assert first == expected
        first.append("changed")
        assert loader.get_group_options(group) == expected
    assert "pruning" in loader.list_groups("")
