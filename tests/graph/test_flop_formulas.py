import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from lightning_prune.graph.flop_formulas import register_missing_formulas
from lightning_prune.graph.macs import count_macs, layer_macs


class Products(nn.Module):
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


@pytest.mark.parametrize("keys", [4, 2])
def test_attention_costs_both_products(keys):
    q, k, v = torch.randn(2, 4, 7, 8), torch.randn(2, keys, 9, 8), torch.randn(2, keys, 9, 6)
    if keys == 4:
        v = torch.randn(2, keys, 9, 8)
    expected = 2 * 4 * 7 * 9 * (8 + v.shape[-1])
    assert count_macs(Products(), (q, k, v)) == expected


def by_hand(tokens, width, up):
    """One TransformerEncoderLayer: q, k, v, output, two products, and the MLP."""
    return tokens * (4 * width * width + 2 * width * up) + 2 * tokens * tokens * width


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_counts_in_eval_mode_what_it_counts_in_training(training):
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True).train(training)
    x = torch.randn(2, 7, 16)
    assert count_macs(layer, x) == 2 * by_hand(7, 16, 32)
    with FlopCounterMode(display=False) as counter:
        layer.train()(x)
    assert counter.get_total_flops() // 2 == count_macs(layer, x)
    assert torch.backends.mha.get_fastpath_enabled()


def test_multihead_attention_with_weights_counts_the_same():
    x = torch.randn(2, 7, 16)
    expected = 2 * (7 * 4 * 16 * 16 + 2 * 7 * 7 * 16)
    assert count_macs(nn.MultiheadAttention(16, 4, batch_first=True), (x, x, x)) == expected


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_cost_their_matrices_at_each_step(kind, gates, both, batch_first):
    net = kind(6, 5, num_layers=2, bidirectional=both, batch_first=batch_first)
    ways = 2 if both else 1
    first, second = gates * 5 * (6 + 5) * ways, gates * 5 * (5 * ways + 5) * ways
    assert count_macs(net, torch.randn(4, 3, 6)) == 12 * (first + second)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3)])
def test_cells_too(kind, gates):
    assert count_macs(kind(6, 5), torch.randn(3, 6)) == 3 * gates * 5 * (6 + 5)


def test_what_no_layer_does_stands_apart():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            x = self.linear(x)
            return torch.einsum("bnd,bmd->bnm", x, x)

    assert layer_macs(Mixed(), torch.randn(2, 5, 8)) == {
        "linear": 2 * 5 * 8 * 8,
        "": 2 * 5 * 5 * 8,
    }


def test_what_torch_knows_is_left_alone():
    before = dict(flop_registry)
    register_missing_formulas()
    assert dict(flop_registry) == before
