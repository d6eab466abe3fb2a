"""Each key of slice_sparsity_args does what it says."""

import copy

import pytest
import torch

from lightning_prune.functional.slices import as_slices
from lightning_prune.loop.pruning import Pruning
from lightning_prune.policies.layers.slice_layers import slice_layers
from lightning_prune.policies.selection.slice_selection import SliceSelection
from tests.loop.plain import OFF, SLICE, write
from tests.networks import Residual, make


def slice_pruning(folder, model=None, **keys):
    model = make(Residual) if model is None else model
    return Pruning(model, write(folder, OFF, SLICE | keys), model.forward)


def masks_of(pruner):
    return pruner.slice_pruner._run.live.masks


def share(pruner, layer="b1.0"):
    """Return the fraction of a layer's slices that are zero."""
    weight = pruner._model.get_submodule(layer).weight
    size = pruner.slice_pruner._args.block_size
    return float((as_slices(weight, size) == 0).all(0).double().mean())


def expected_masks(ratio, size=2, first=False, norm=2):
    model = make(Residual)
    return SliceSelection(slice_layers(model, None, size), size, first, norm).select(ratio).masks


@pytest.mark.parametrize(
    ("keys", "shares"),
    [
        ({}, [0, 0.25, 0.5, 0.5, 0.5]),
        ({"end_epoch": 4, "epoch_rate": 2}, [0, 0.25, 0.25, 0.5, 0.5]),
        ({"prune_rate": 0.25, "end_epoch": 2}, [0, 0.25, 0.25, 0.25, 0.25]),
        ({"pruning_gradually": False, "end_epoch": 4}, [0, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_schedule(tmp_path, keys, shares):
    pruner = slice_pruning(tmp_path, **keys)
    found = []
    for epoch in range(5):
        pruner.prune(pruner._model, epoch)
        pruner.prune(pruner._model, epoch)
        found.append(share(pruner))
    assert found == shares


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({}, {}),
        ({"disable_first_index": True}, {"first": True}),
        ({"pruning_method": "L1_norm"}, {"norm": 1}),
        ({"block_size": 1}, {"size": 1}),
    ],
)
def test_which_slices_go(tmp_path, keys, arguments):
    pruner = slice_pruning(tmp_path, pruning_gradually=False, **keys)
    pruner.prune(pruner._model, 1)
    expected = expected_masks(0.5, **arguments)
    assert masks_of(pruner).keys() == expected.keys()
    assert all(torch.equal(mask, expected[name]) for name, mask in masks_of(pruner).items())
    if arguments:
        usual = expected_masks(0.5)
        assert any(not torch.equal(usual[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize("start", [1, 2])
def test_unprune_lifts_the_masks_of_a_loaded_state(tmp_path, start):
    pruner = slice_pruning(tmp_path)
    model = pruner._model
    before = copy.deepcopy(model.state_dict())
    pruner.prune(model, 1)
    state = copy.deepcopy(pruner.state_dict())
    other = slice_pruning(tmp_path, model, pruning_mode="Unprune", start_epoch=start)
    del pruner
    other.load_state_dict(state)
    for epoch in range(start):
        other.prune(model, epoch)
        assert share(other) == 0.25
    other.prune(model, start)
    assert masks_of(other) == {}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_unprune_without_masks_says_so(tmp_path):
    pruner = slice_pruning(tmp_path, pruning_mode="Unprune")
    with pytest.warns(UserWarning, match="pruning_mode Unprune has no effect"):
        pruner.prune(pruner._model, 1)
    pruner.prune(pruner._model, 2)


def test_reg_gives_the_count_and_the_gradient_of_the_log_norms(tmp_path):
    model = make(Residual)
    pruner = slice_pruning(tmp_path, model, reg=0.01, layers=["b1.0"])
    with torch.no_grad():
        model.b1[0].weight[0, 0, 0, 0] = model.b1[0].weight[5, 0, 0, 0] = 0
    slices = as_slices(model.b1[0].weight, 2)
    number = slices[0].numel()
    value = pruner.slice_regularize(model)
    assert value.item() == pytest.approx(0.01 * (number - 1))
    value.backward()
    found = model.b1[0].weight.grad
    squares = slices.detach().square().sum(0)
    expected = 0.01 * slices.detach() / squares.where(squares > 0, 1.0)
    torch.testing.assert_close(as_slices(found, 2), expected, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for n, p in model.named_parameters() if n != "b1.0.weight")


def test_layers(tmp_path):
    pruner = slice_pruning(tmp_path, layers=["!b1.0", "!b2.*"])
    pruner.prune(pruner._model, 1)
    assert "b1.0" not in masks_of(pruner)
    assert share(pruner) == 0
    assert share(pruner, "a1.0") == 0.25


def test_a_block_size_that_does_not_divide_is_an_error_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"block_size=4 does not divide .* a1\.0 \(6\)"):
        slice_pruning(tmp_path, block_size=4)


def test_masks_hold(tmp_path):
    pruner = slice_pruning(tmp_path)
    model = pruner._model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    pruner.prune(model, 1)
    for _ in range(3):
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        assert share(pruner) == 0.25
