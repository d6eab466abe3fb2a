"""Inner products of inputs against those of all rows at once."""

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.surgery import input_products as room
from lightning_prune.surgery.input_products import input_products
from lightning_prune.surgery.layer_matrix import LayerMatrix
from lightning_prune.surgery.places import Places
from tests.graph.recurrent import Recurrent


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.Flatten(), nn.Linear(45, 2)
    ).train()


def rows_of(layer: nn.Module, x: Tensor) -> Tensor:
    matrix = LayerMatrix(layer)
    total = int(torch.tensor(matrix.places(x)).prod())
    return matrix.rows(x, torch.arange(total).expand(len(x), -1))[0]


@pytest.mark.parametrize("limit", [None, 50**2])
def test_products_are_those_of_all_rows(limit: int | None, monkeypatch: pytest.MonkeyPatch):
    """In one pass, and in several where memory is short."""
    if limit is not None:
        monkeypatch.setattr(room, "LARGEST", limit)
    model = net()
    batches = [torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8)]
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = input_products(model, ["0", "2", "4"], batches, call, Places(10_000))
    assert len(passes) == (2 if limit is None else 4)
    assert model.training
    assert all(len(module._forward_pre_hooks) == 0 for module in model)
    with torch.no_grad():
        for name in ("0", "2", "4"):
            x = torch.cat(batches)
            for layer in model[: int(name)]:
                x = layer(x)
            rows = rows_of(model[int(name)], x).double()
            own = found[name]
            assert own.count == len(rows)
            torch.testing.assert_close(own.total.double(), rows.sum(0), rtol=1e-5, atol=1e-5)
            centred = rows - rows.mean(0)
            wanted = centred.T @ centred
            torch.testing.assert_close(own.centred, wanted, rtol=1e-3, atol=1e-3)
            assert own.is_finite


def test_a_layer_too_wide_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "LARGEST", 40**2)
    with pytest.warns(UserWarning, match=r"4 \(45 inputs\): too many"):
        found = input_products(net(), ["0", "2", "4"], [torch.rand(2, 3, 8, 8)], call, Places())
    assert set(found) == {"0", "2"}


def test_a_layer_in_a_loop_is_read_each_time():
    memory = Recurrent(2, 3)
    found = input_products(
        memory, ["write", "repeat"], [torch.rand(2, 2, 5, 4, 4)], call, Places(9999)
    )
    assert found["write"].count == found["repeat"].count == 2 * 5 * 16


def test_inputs_that_are_not_finite_are_seen_and_hooks_removed_after_an_error():
    model = net()
    x = torch.rand(2, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    assert not input_products(model, ["0"], [x], call, Places(999))["0"].is_finite
    with pytest.raises(RuntimeError):
        input_products(model, ["0"], [torch.rand(2, 5, 8, 8)], call, Places())
    assert not model[0]._forward_pre_hooks
    assert model.training
