"""Rows times W are what the layer itself gives, at places drawn at random."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.surgery.layer_matrix import LayerMatrix, is_matrix

SIZES = {1: (11,), 2: (9, 7), 3: (5, 6, 4)}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def cases():
    for dim, groups, bias in product((1, 2, 3), (1, 2, 4), (True, False)):
        for stride, dilation, padding in ((1, 1, 0), (2, 1, 1), (1, 2, 2), (3, 2, 1)):
            yield CONVS[dim](4, 8, 3, stride, padding, dilation, groups, bias), SIZES[dim]
        for stride, padding, more, dilation in ((1, 0, 0, 1), (2, 1, 1, 1), (3, 2, 1, 2)):
            yield (
                TRANSPOSED[dim](4, 8, 3, stride, padding, more, groups, bias, dilation),
                SIZES[dim],
            )
    for kernel in (2, 3, 4):
        yield nn.Conv2d(4, 6, kernel, padding="same", dilation=2), SIZES[2]
        yield nn.Conv1d(4, 6, kernel, padding="same"), SIZES[1]
    yield nn.Conv2d(4, 6, 3, padding="valid", groups=2), SIZES[2]
    for mode in ("reflect", "replicate", "circular"):
        yield nn.Conv2d(4, 6, (3, 2), padding=(1, 2), padding_mode=mode, stride=(1, 2)), SIZES[2]
        yield nn.Conv1d(4, 4, 3, padding=1, padding_mode=mode, groups=4), SIZES[1]
    yield nn.Conv2d(4, 6, (1, 3), (2, 1), (0, 1), (1, 2)), SIZES[2]
    yield nn.Conv2d(4, 4, 3, padding=1, groups=4), SIZES[2]
    yield nn.ConvTranspose2d(4, 4, (2, 3), (2, 1), (0, 1), (1, 0), 4), SIZES[2]
    # Cropped rather than padded: more padding than the kernel reaches.
    yield nn.ConvTranspose2d(4, 4, 2, 2, 2), SIZES[2]


def check(layer: nn.Module, x: Tensor, output: Tensor) -> None:
    """Compare W x + b with the output, (images, outputs, places)."""
    matrix = LayerMatrix(layer)
    images = matrix.images(x)
    places = matrix.places(x)
    total = int(torch.tensor(places).prod())
    assert output.shape == (images, output.shape[1], total)
    chosen = torch.randint(total, (images, 7))
    rows = matrix.rows(x, chosen)
    found = rows @ matrix.weight.transpose(1, 2)  # (groups, images x 7, outputs of a group)
    found = found.movedim(0, 1).flatten(1)
    if layer.bias is not None:
        found = found + layer.bias
    wanted = output.gather(2, chosen[:, None].expand(-1, output.shape[1], -1))
    torch.testing.assert_close(found, wanted.transpose(1, 2).flatten(0, 1))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("layer", "size"), list(cases()), ids=str)
def test_rows_times_the_weight_are_the_layers_own_output(layer: nn.Module, size: tuple[int, ...]):
    torch.manual_seed(0)
    layer = layer.double()
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        check(layer, x, layer(x).flatten(2))
        assert LayerMatrix(layer).places(x) == layer(x).shape[2:]
        if layer.padding_mode == "zeros":  # the others want a batch
            alone = layer(x[0])
            assert LayerMatrix(layer).images(x[0]) == 1
            check(layer, x[0], alone.flatten(1)[None])


@pytest.mark.parametrize("shape", [(5, 4), (5, 6, 4), (2, 3, 2, 4), (4,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_read_vectors_and_tokens(shape: tuple[int, ...], bias: bool):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias).double()
    x = torch.randn(shape, dtype=torch.float64)
    images = 1 if len(shape) == 1 else shape[0]
    with torch.no_grad():
        check(layer, x, layer(x).reshape(images, -1, 3).transpose(1, 2))


@pytest.mark.parametrize("layer", [*(layer for layer, _ in cases()), nn.Linear(3, 5)], ids=str)
def test_writing_the_weight_that_was_read_changes_nothing(layer: nn.Module):
    layer = copy.deepcopy(layer)
    own = layer.weight.detach().clone()
    matrix = LayerMatrix(layer)
    weight = matrix.weight.clone()
    assert weight.shape[2] == matrix.taps * own.shape[0 if matrix.transposed else 1] // (
        matrix.groups if matrix.transposed else 1
    )
    matrix.set_weight(weight)
    assert torch.equal(layer.weight, own)
    matrix.set_weight(2 * weight)
    assert torch.equal(layer.weight, 2 * own)


def test_layers_of_other_kinds_or_with_a_computed_weight_are_no_matrices():
    assert is_matrix(nn.Conv1d(2, 2, 1))
    assert is_matrix(nn.Linear(2, 2, bias=False))
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    old = nn.utils.spectral_norm(nn.Linear(2, 2))
    for layer in (computed, old, nn.Embedding(2, 2), nn.Bilinear(2, 2, 2), nn.BatchNorm2d(2),
                  nn.MultiheadAttention(2, 1)):  # fmt: skip
        assert not is_matrix(layer)
