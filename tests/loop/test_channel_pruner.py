"""What a plain loop says when it is set up, before anything trains."""

import json

import pytest
import torch
from torch import nn

from lightning_prune.loop.pruning import Pruning


def folder_of(path, **options):
    channel = {
        "is_prune": True, "start_epoch": 0, "end_epoch": 3, "mac_target": 0.6,
        "input_shape": [1, 3, 8, 8], **options,
    }  # fmt: skip
    content = {"channel_sparsity_args": channel, "slice_sparsity_args": {"is_prune": False}}
    (path / "pruning_config.json").write_text(json.dumps(content))
    return path


def plain():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))


@pytest.mark.parametrize("log", ["", "pruned to 60 %"])
def test_a_target_that_is_said_to_be_met_without_a_record_is_warned_of(tmp_path, log):
    folder = folder_of(tmp_path, reach_mac_target=True, log_str=log)
    with pytest.warns(
        UserWarning, match=r"is this model the cut one\? .*reach_mac_target to false"
    ):
        Pruning(plain(), folder)


def test_a_record_that_the_model_contradicts_is_an_error(tmp_path):
    line = "epoch 4: cut to 49.3% of the dense MACs (target 50.0%); kept: 0 7/16"
    net = plain()
    pruning = Pruning(net, folder_of(tmp_path, reach_mac_target=True, log_str=line))
    with pytest.raises(RuntimeError, match="0 has 16"):
        pruning.prune(net, 0)


class Written(nn.Module):
    """Its forward pass states the width of its first layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return self.c(self.b(y.view(len(x), 16, *y.shape[2:])).relu())


@pytest.mark.parametrize(
    "forward",
    [
        lambda net: net.forward,
        lambda net: net,
        lambda net: lambda x: net(x),
        lambda net: lambda model, x: model(x),
        lambda net: None,
    ],
    ids=["method", "module", "closure", "function of the model", "none"],
)
def test_what_cannot_be_cut_is_said_at_the_start_and_the_rest_is_pruned(tmp_path, forward):
    net = Written()
    weight = net.a.weight
    folder = folder_of(tmp_path, mac_target=0.8, prune_channels_at_init=True)
    with pytest.warns(UserWarning, match=r"1 group of .* a: the forward pass of the cut"):
        pruning = Pruning(net, folder, forward(net))
    assert net.a.weight is weight
    assert list(pruning.channel_pruner.groups) == ["b"]
    assert net.a.out_channels == 16
    assert net.b.out_channels < 16


def test_a_layer_that_cannot_be_cut_is_no_choice(tmp_path):
    net = Written()
    with (
        pytest.warns(UserWarning, match="keeps its width"),
        pytest.raises(ValueError, match="'a' cannot be pruned: the forward pass of the cut"),
    ):
        Pruning(net, folder_of(tmp_path, layers=["a"]), net.forward)
    assert torch.isfinite(net.a.weight).all()
