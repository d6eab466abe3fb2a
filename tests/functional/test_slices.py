"""Layout, norms and choice of slices; oracles are the golden vectors and loops in NumPy."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.functional.slices import (
    as_slices,
    expand_slices,
    filters_back,
    filters_first,
    first_of_rows,
    slice_norms,
    smallest_slices,
)
from tests.golden_vectors import GoldenVectors

SHAPES = [
    (6, 3),
    (8, 2, 5),
    (12, 3, 3, 3),
    (16, 1, 3, 3),
    (4, 3, 2, 3, 2),
    (8, 5, 1, 1),
    (8, 4, 5, 7),
]


@pytest.fixture(scope="module")
def golden(golden_vectors: GoldenVectors):
    cases = json.loads((golden_vectors / "09_slices.json").read_text())["cases"]
    return cases, np.load(golden_vectors / "09_slices.npz")


def members(shape, block_size):
    """Flat indices of the weights of every slice, filter by filter."""
    flat = np.arange(math.prod(shape)).reshape(shape)
    apart = shape[0] // block_size
    return {
        (b, *place): [int(flat[(b + apart * a, *place)]) for a in range(block_size)]
        for b in range(apart)
        for place in np.ndindex(*shape[1:])
    }


def test_the_layout_is_that_of_the_vectors(golden):
    for case in golden[0]:
        key, size = case["key"], case["block_size"]
        flat = torch.arange(math.prod(case["shape"])).view(case["shape"])
        assert np.array_equal(
            as_slices(flat, size).flatten(1).T, golden[1][f"{key}|slice_indices"]
        ), key
        weight = torch.from_numpy(golden[1][f"{key}|weight"])
        norms = slice_norms(weight, size).flatten().numpy()
        np.testing.assert_allclose(norms, golden[1][f"{key}|slice_l2_norms"], rtol=1e-5)
        first = first_of_rows(as_slices(weight, size)[0]).flatten().nonzero().flatten()
        assert np.array_equal(first, golden[1][f"{key}|first_index_slices"]), key


def test_filters_that_are_left_are_laid_out_as_in_the_vectors(golden):
    """With a block masked the reference lists the slices of the other filters first."""
    seen = 0
    for case in golden[0]:
        name = f"{case['key']}|mask_one_block"
        if f"{name}|masked_filters" not in golden[1]:
            continue
        flat = torch.arange(math.prod(case["shape"])).view(case["shape"])
        left = np.setdiff1d(np.arange(case["shape"][0]), golden[1][f"{name}|masked_filters"])
        mine = as_slices(flat[left], case["block_size"]).flatten(1).T
        theirs = golden[1][f"{name}|slice_indices"]
        assert np.array_equal(mine, np.delete(theirs, golden[1][f"{name}|masked_slices"], axis=0))
        seen += 1
    assert seen == 7


def test_the_choice_is_the_vectors_without_their_one_slice_too_many(golden):
    seen = 0
    for case in golden[0]:
        weight = torch.from_numpy(golden[1][f"{case['key']}|weight"])
        norms = slice_norms(weight, case["block_size"])
        for step in case["prune"]:
            first = step["disable_first_index"]
            mask = golden[1].get(f"{case['key']}|prune|first{int(first)}|pr{step['pr']}|mask")
            if mask is None:
                continue
            protected = first_of_rows(norms).flatten().numpy()
            if first and mask[protected].any():
                continue  # the reference runs out of free slices and zeroes protected ones
            zero = ~smallest_slices(norms, step["pr"], first).flatten().numpy()
            assert zero.sum() == step["n_zero_floor"] == step["n_zero_reference"] - 1
            extra = np.flatnonzero(mask & ~zero)
            assert not (zero & ~mask).any()
            assert len(extra) == 1
            assert norms.flatten()[extra[0]] == norms.flatten()[mask].max()
            seen += 1
    assert seen >= 30


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_brute_force(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    weight = torch.randn(shape, generator=generator)
    size = 2
    places = members(shape, size)
    flat = weight.flatten().double().numpy()
    for norm in (1, 2):
        norms = slice_norms(weight, size, norm)
        expected = {p: np.linalg.norm(flat[index], norm) for p, index in places.items()}
        assert tuple(norms.shape) == (shape[0] // size, *shape[1:])
        for place, value in expected.items():
            assert norms[place].item() == pytest.approx(value, rel=1e-6)
        for first in (False, True):
            free = [p for p in places if not first or (len(p) > 2 and p[-1] != 0)]
            order = sorted(free, key=expected.__getitem__)
            gone = order[: math.floor(0.4 * len(places))]
            mask = smallest_slices(norms, 0.4, first)
            assert {tuple(p) for p in (~mask).nonzero().tolist()} == set(gone)
            full = np.ones(flat.size, dtype=bool)
            for place in gone:
                full[places[place]] = False
            assert np.array_equal(expand_slices(mask, size).flatten(), full)


def test_equal_norms_go_in_the_order_of_the_layout():
    mask = smallest_slices(torch.ones(2, 2, 3), 0.5)
    assert mask.flatten().tolist() == [False] * 6 + [True] * 6


def test_the_number_does_not_suffer_from_floating_point():
    for percent in range(1, 101):
        assert int((~smallest_slices(torch.rand(1, 100), percent / 100)).sum()) == percent


def test_what_is_held_goes_first_and_what_does_not_count_stays():
    norms = torch.tensor([[0.0, 0.0, 5.0, 1.0]])
    held = torch.tensor([[False, True, False, False]])
    assert smallest_slices(norms, 0.25, held=held).tolist() == [[True, False, True, True]]
    counted = torch.tensor([[False, True, True, True]])
    # floor(0.67 * 3) = 2 of the three that count
    assert smallest_slices(norms, 0.67, counted=counted).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_weights_are_seen_as_the_filters_that_they_apply(groups):
    """Zeroing filter f silences output channel f and no other."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 12, 3, groups=groups, bias=False)
    filters = filters_first(layer.weight.detach().clone(), True, groups)
    assert tuple(filters.shape) == (12, 8 // groups, 3, 3)
    assert torch.equal(filters_back(filters, True, groups), layer.weight)
    for f in (0, 5, 11):
        less = filters.clone()
        less[f] = 0
        with torch.no_grad():
            layer.weight.copy_(filters_back(less, True, groups))
            out = layer(torch.randn(1, 8, 4, 4))
        silent = (out.abs().sum((0, 2, 3)) == 0).nonzero().flatten().tolist()
        assert silent == [f]


def test_a_block_size_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match=r"10 filters do not divide .* block_size=4"):
        as_slices(torch.zeros(10, 2), 4)
