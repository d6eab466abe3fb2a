import pytest
import torch
from torch import nn

from lightning_prune.surgery.load_state_dict_pruned import load_state_dict_pruned


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def test_the_call_of_the_document_loads_a_cut_file():
    narrow, model = net(5), net(8)
    weights = narrow.state_dict()
    try:
        model.load_state_dict(weights)
    except Exception:
        model, missing_keys, unexpected_keys = load_state_dict_pruned(model, weights)
    assert (missing_keys, unexpected_keys) == ([], [])
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(model.eval()(x), narrow.eval()(x))


def test_what_is_missing_or_unexpected_is_returned_or_refused():
    narrow, dense = net(5), net(8)
    weights = {n: v for n, v in narrow.state_dict().items() if n != "2.bias"}
    weights["head.weight"] = torch.zeros(1)
    model, missing, unexpected = load_state_dict_pruned(dense, weights)
    assert model is dense
    assert (missing, unexpected) == (["2.bias"], ["head.weight"])
    with pytest.raises(RuntimeError, match=r"2\.bias"):
        load_state_dict_pruned(net(8), weights, strict=True)


def test_a_file_of_which_nothing_fits_is_warned_of():
    with pytest.warns(UserWarning, match="nothing was loaded: none of the 2 names"):
        load_state_dict_pruned(net(8), {"a": torch.zeros(1), "b": torch.zeros(1)})
