"""A plain loop that prunes attention."""

import pytest
import torch
from torch import nn

from lightning_prune.loop.pruning import Pruning
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from tests.loop.plain import CHANNEL, write
from tests.sized_networks import Vit

AT_ONCE = CHANNEL | {"start_epoch": 0, "end_epoch": 1, "input_shape": [1, 3, 32, 32]}


@pytest.mark.parametrize("norms", ["exact", "plain"])
def test_heads_are_cut_and_norms_are_what_the_file_says(norms, tmp_path):
    torch.manual_seed(0)
    keys = {"norms": norms, "hold_epochs": 0, "global_pruning": False}
    model = Vit(1)
    pruner = Pruning(model, write(tmp_path, AT_ONCE | keys), model.forward)
    pruner.prune(model, 0)
    assert model.blocks[0].attention.num_heads == 2
    assert model.patch.out_channels == 16
    assert (type(model.norm) is nn.LayerNorm) == (norms == "plain")
    x, fresh = torch.randn(2, 3, 32, 32), Vit(1)
    load_pruned_state_dict(fresh, model.state_dict())
    assert torch.equal(fresh.eval()(x), model.eval()(x))


def test_the_width_of_heads_is_cut_where_the_file_says_so(tmp_path):
    torch.manual_seed(0)
    keys = {"attention": "width", "hold_epochs": 0, "global_pruning": False}
    model = Vit(1)
    model.blocks[0].attention.scale = None
    pruner = Pruning(model, write(tmp_path, AT_ONCE | keys), model.forward)
    pruner.prune(model, 0)
    own = model.blocks[0].attention
    assert (own.num_heads, own.head_dim, own.qkv.out_features) == (4, 4, 3 * 4 * 4)
    x, fresh = torch.randn(2, 3, 32, 32), Vit(1)
    fresh.blocks[0].attention.scale = None
    load_pruned_state_dict(fresh, model.state_dict())
    assert torch.equal(fresh.eval()(x), model.eval()(x))


def test_an_unknown_kind_of_norms_is_one_clear_error(tmp_path):
    model = Vit(1)
    with pytest.raises(ValueError, match=r"norms='sharp': pass 'exact' or 'plain'"):
        Pruning(model, write(tmp_path, AT_ONCE | {"norms": "sharp"}), model.forward)
