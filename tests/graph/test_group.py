import pytest

from tests.graph.factors import factor_groups


def test_a_layer_that_makes_channels_of_several_groups_selects_all_of_them():
    groups = factor_groups()
    assert groups.select(["qkv"]) == ("qkv", "qkv:2")
    assert groups.select(["q*"]) == ("qkv", "qkv:2")
    assert groups.select(["qkv:2"]) == ("qkv:2",)
    assert groups.select(["project"]) == ("embed",)
    assert groups.select(None) == ("embed", "qkv", "qkv:2")


def test_groups_of_a_layer_come_in_order():
    groups = factor_groups()
    assert groups.group_of("qkv").name == "qkv"
    assert [group.name for group in groups.groups_of("qkv")] == ["qkv", "qkv:2"]
    assert groups["qkv:2"].root == "qkv"
    with pytest.raises(KeyError, match="did you mean 'qkv'"):
        groups.groups_of("qkw")
