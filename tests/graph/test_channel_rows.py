import torch
from torch import nn

from lightning_prune.graph.channel_rows import add_to_channels, weight_rows
from lightning_prune.graph.group import Member
from lightning_prune.graph.layer_kinds import Role, output_dims


def whole(layer: nn.Module, role: Role, channels: int) -> Member:
    every = torch.arange(channels)
    made = dict(output_dims(layer))
    dims = tuple(made.items()) if role == "producer" else (("weight", 1 - made["weight"]),)
    return Member("a", role, every, every, dims)


def test_rows_are_the_weights_of_single_channels():
    for layer in (nn.Conv2d(3, 4, 2), nn.ConvTranspose2d(3, 4, 2), nn.Linear(3, 4)):
        weight = layer.weight.transpose(0, 1) if layer.weight.shape[0] == 3 else layer.weight
        rows = weight_rows(layer, whole(layer, "producer", 4))
        assert torch.equal(rows, torch.stack([row.flatten() for row in weight]))
        columns = weight_rows(layer, whole(layer, "consumer", 3))
        assert torch.equal(columns, torch.stack([weight[:, c].flatten() for c in range(3)]))


def test_positions_add_up_in_the_channel_that_they_hold():
    member = Member("a", "consumer", torch.tensor([4, 0, 2]), torch.tensor([1, 0, 1]))
    values = torch.arange(10.0).view(5, 2)
    total = torch.ones(3, 2)
    assert add_to_channels(total, values, member) is total
    assert total.tolist() == [[1, 2], [1 + 8 + 4, 1 + 9 + 5], [1, 1]]
