import pytest
import torch
from torch import nn

from lightning_prune.graph.group import ChannelGroups, Group, Member, Size
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.sizes import (
    changed_sizes,
    load_sizes,
    set_sizes,
    sizes_after,
    why_no_size,
)
from tests.graph.factors import attention, factor_groups
from tests.graph.test_removed_rows import plan_of


def test_numbers_follow_the_cut():
    net = attention()
    assert changed_sizes(net) == {}
    cut_channels(net, factor_groups(), plan_of("qkv", "qkv:2"))
    assert (net.num_heads, net.split) == (2, (3, 2, 4))
    assert (net.qkv.out_features, net.project.in_features) == (24, 8)
    assert changed_sizes(net) == {"num_heads": 2, "split": [3, 2, 4]}
    one = PruningPlan({"qkv": torch.tensor([1])}, {"qkv": 2})
    cut_channels(net, half(factor_groups()), one)
    assert changed_sizes(net) == {"num_heads": 1, "split": [3, 1, 4]}


def half(groups):
    """The heads of the cut network."""
    rows = torch.arange(24)
    first, second = groups["qkv"].members
    own = Group(
        "qkv",
        2,
        (
            type(first)("qkv", "producer", rows, rows % 8 // 4, first.dims),
            type(first)("project", "consumer", rows[:8], rows[:8] // 4, second.dims),
        ),
        sizes=groups["qkv"].sizes,
    )
    return ChannelGroups({"qkv": own})


def test_a_number_of_several_groups_is_multiplied_by_each():
    net = nn.Module()
    net.total = 24
    sizes = (Size("", "total"),)
    groups = {"a": Group("a", 4, (), sizes=sizes), "b": Group("b", 6, (), sizes=sizes)}
    keep = {"a": torch.arange(3), "b": torch.arange(2)}
    set_sizes(sizes_after(net, groups, PruningPlan(keep, {"a": 4, "b": 6})))
    assert net.total == 6  # 24 x 3/4 x 2/6: whole, though 24 x 3/4 x 1/6 would not be by itself


def test_what_would_not_stay_whole_is_refused_before_anything_changes():
    net, groups = attention(), factor_groups()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.split = (3, 3, 6)  # 3 is no multiple of what is kept of 4 heads
    with pytest.raises(ValueError, match=r"split is 3 and would become 1.5: keep a number"):
        cut_channels(net, groups, plan_of("qkv", "qkv:2"))
    assert net.num_heads == 4
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.split = "4"
    with pytest.raises(ValueError, match=r"split\[1\] is '4', no number"):
        cut_channels(net, groups, plan_of("qkv"))


def test_a_record_gives_the_sizes_to_another_model_and_back():
    cut, fresh = attention(), attention()
    cut_channels(cut, factor_groups(), plan_of("qkv", "qkv:2"))
    sizes = changed_sizes(cut)
    assert all(why_no_size(fresh, name, value) is None for name, value in sizes.items())
    load_sizes(fresh, sizes)
    assert (fresh.num_heads, fresh.split) == (2, (3, 2, 4))
    assert changed_sizes(fresh) == sizes
    load_sizes(fresh, {})
    assert (fresh.num_heads, fresh.split, changed_sizes(fresh)) == (4, (3, 4, 6), {})


def test_a_file_cannot_set_anything_else():
    net = attention()
    assert why_no_size(net, "num_heads", 5) == "num_heads is 5 in the file and 4 when dense"
    for attribute, value in (
        ("training", 1), ("scale", 1), ("num_heads", [2]), ("split", [3, 2]), ("forward", 1),
        ("num_heads", 2.0), ("_parameters", 1), ("missing", 1), ("num_heads", True),
    ):  # fmt: skip
        assert why_no_size(net, attribute, value) == (
            f"{attribute} is no number of the module that a cut changes"
        )
    assert why_no_size(net, "num_heads", 0) == "num_heads is 0 in the file and 4 when dense"


def grouped(transposed=False):
    """Convolutions of 4 groups: whole groups go, and the number of them."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 1), kind(12, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    into, out = torch.arange(12), torch.arange(8)
    if transposed:  # (in, out / groups): a group is 3 rows
        rows = Member("1", "consumer", into, into // 3, (("weight", 0),))
        middle = (rows, Member("1", "producer", out, out // 2, (("bias", 0),)))
    else:
        middle = (Member("1", "producer", out, out // 2, (("weight", 0), ("bias", 0))),)
    first = Member("0", "producer", into, into // 3, (("weight", 0), ("bias", 0)))
    last = Member("3", "consumer", out, out // 2, (("weight", 1),))
    group = Group("0", 4, (first, *middle, last), sizes=(Size("1", "groups"),))
    return net, ChannelGroups({"0": group}, {}, ("0", "1", "3"))


@pytest.mark.parametrize("transposed", [False, True])
def test_whole_groups_of_a_convolution_are_cut(transposed):
    net, groups = grouped(transposed)
    plan = PruningPlan({"0": torch.tensor([0, 2, 3])}, {"0": 4})
    x = torch.randn(1, 3, 6, 6)
    macs = MacModel.of(net, groups, x)
    ChannelMask(net, groups, plan).apply()
    masked = net(x)
    cut_channels(net, groups, plan)
    assert (net[1].groups, net[1].in_channels, net[1].out_channels) == (3, 9, 6)
    torch.testing.assert_close(net(x), masked)
    assert macs.remaining({"0": 3}) == count_macs(net, x)
