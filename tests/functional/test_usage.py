import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lightning_prune.functional.usage import count_used, used_channels

THRESHOLD = 1e-6
SHAPES = {
    "nchw": ((3, 7, 5, 4), 1),
    "unbatched": ((7, 5, 4), 0),
    "one place": ((4, 7, 1, 1), 1),
    "signal": ((3, 7, 9), 1),
    "volume": ((2, 7, 3, 4, 5), 1),
    "linear": ((6, 7), 1),
    "tokens": ((2, 5, 7), -1),
    "vector": ((7,), 0),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ACTIVATIONS = {
    "relu": (F.relu, lambda a: np.maximum(a, 0)),
    "relu in place": (torch.relu_, lambda a: np.maximum(a, 0)),
    "clamp": (lambda x: x.clamp_(0, 6), lambda a: np.clip(a, 0, 6)),
    "silu": (F.silu, lambda a: a / (1 + np.exp(-a))),
    "hardtanh in place": (nn.Hardtanh(0, 1, inplace=True), lambda a: np.clip(a, 0, 1)),
}


def reference(output, threshold=THRESHOLD, dim=1, activation=None):
    """Take the plain mean in double precision."""
    values = np.moveaxis(output.detach().to(torch.float64).numpy(), dim, 0)
    if activation is not None:
        values = activation(values)
    with np.errstate(invalid="ignore"):
        means = np.abs(values).reshape(len(values), -1).mean(axis=1)
        return (~(means <= threshold)).tolist()


class Elsewhere(torch.Tensor):
    """Says that it lies on another device, and fails where its values would be waited for."""

    is_cpu = property(lambda self: False)
    device = property(lambda self: torch.device("meta"))

    def wait(self, *_):
        raise AssertionError("waits for the device")

    __bool__ = __float__ = __int__ = item = tolist = nonzero = numpy = wait


def on_other_devices(output, threshold=THRESHOLD, dim=1, activation=None):
    """Count as is done on a GPU."""
    counts = torch.zeros(output.shape[dim], dtype=torch.int64)
    count_used(counts, output.as_subclass(Elsewhere), threshold, dim, activation)
    return (counts > 0).tolist()


def mixed(shape, dim, seed, dtype=torch.float32):
    """Channels of every kind: dead, weak, just above, alive in one place only, plainly alive."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).movedim(dim, 0)
    count = values[0].numel()
    values[0] = 0
    values[1] *= 1e-9
    values[2] = 1.1 * THRESHOLD
    values[3] = 0.9 * THRESHOLD
    values[4] = 0
    values[(4, *[0] * (values.ndim - 1))] = (
        2 * count * THRESHOLD
    )  # far from the middle of the batch
    return values.movedim(0, dim).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SHAPES)
def test_equals_the_plain_mean(kind, dtype):
    shape, dim = SHAPES[kind]
    values = mixed(shape, dim, 0, dtype)
    expected = reference(values, dim=dim)
    found = used_channels(values, THRESHOLD, dim)
    assert found.dtype == torch.bool
    assert found.shape == (7,)
    assert found.tolist() == expected == [False, False, True, False, True, True, True]
    assert on_other_devices(values, dim=dim) == expected


def test_memory_format_does_not_matter():
    values = mixed((3, 7, 5, 4), 1, 1)
    last = values.contiguous(memory_format=torch.channels_last)
    apart = torch.cat([values, values], 3)[..., ::2]
    assert used_channels(last).tolist() == used_channels(values).tolist() == reference(values)
    assert used_channels(apart).tolist() == reference(apart)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(SHAPES)),
    seed=st.integers(0, 10**6),
    scale=st.lists(st.sampled_from([0.0, 1e-12, 1e-7, 5e-7, 2e-6, 1e-3, 1.0]), min_size=7,
                   max_size=7),
    threshold=st.sampled_from([0.0, 1e-6, 1e-4, 0.3]),
    sparse=st.booleans(),
)  # fmt: skip
def test_the_shortcut_decides_as_the_whole_does(kind, seed, scale, threshold, sparse):
    shape, dim = SHAPES[kind]
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator) * 2 - 1
    if sparse:
        values *= torch.rand(shape, generator=generator) < 0.1
    values = (values.movedim(dim, -1) * torch.tensor(scale)).movedim(-1, dim)
    means = values.movedim(dim, 0).reshape(7, -1).double().abs().mean(1)
    close = (means - threshold).abs() < 1e-4 * threshold  # float32 may decide either way
    found = used_channels(values, threshold, dim)
    expected = torch.tensor(reference(values, threshold, dim))
    assert torch.equal(found[~close], expected[~close])
    assert found.tolist() == on_other_devices(values, threshold, dim)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["nchw", "linear", "tokens"])
def test_the_activation_is_applied_to_a_copy(name, kind):
    shape, dim = SHAPES[kind]
    ours, theirs = ACTIVATIONS[name]
    values = mixed(shape, dim, 2)
    values.movedim(dim, 0)[5] = -100.0
    before = values.clone()
    assert used_channels(values, THRESHOLD, dim, ours).tolist() == reference(
        values, THRESHOLD, dim, theirs
    )
    assert on_other_devices(values, THRESHOLD, dim, ours) == reference(
        values, THRESHOLD, dim, theirs
    )
    assert torch.equal(values, before)


def test_exactly_at_the_threshold_is_unused():
    """0.25 is exact in every precision, and so are sums of it."""
    values = torch.full((2, 3, 4, 4), 0.25)
    values[:, 1] = torch.nextafter(torch.tensor(0.25), torch.tensor(1.0)) + 1e-4
    values[:, 2] = 0.25 - 1e-4
    for dtype in (torch.float32, torch.float64):
        assert used_channels(values.to(dtype), 0.25).tolist() == [False, True, False]
    assert used_channels(torch.zeros(1, 2, 2), 0.0).tolist() == [False, False]
    assert used_channels(torch.full((1, 2, 2), 1e-30), 0.0).tolist() == [True, True]


def test_one_place_decides_only_where_its_share_suffices():
    """Far above the threshold in the line that is read first, and yet below it on average."""
    values = torch.zeros(4, 2, 4, 4)
    values[2, 0, 2] = 1.0  # mean 4 / 64
    assert used_channels(values, 0.0624).tolist() == [True, False]
    assert used_channels(values, 0.0626).tolist() == [False, False]


def test_nan_and_infinity_are_used():
    values = torch.zeros(2, 4, 4, 4)
    values[0, 0, 0, 0] = torch.nan  # read last
    values[1, 1, 2, 2] = torch.nan  # read first
    values[0, 2, 0, 0] = torch.inf
    assert used_channels(values).tolist() == [True, True, True, False] == reference(values)
    values[:, 3] = 1.0
    assert used_channels(values).tolist() == [True] * 4


@pytest.mark.parametrize("shape", [(0, 5, 4, 4), (2, 5, 0, 4), (0, 5)])
def test_an_empty_batch_uses_nothing(shape):
    assert used_channels(torch.zeros(shape), activation=F.relu).tolist() == [False] * 5


def test_counts_go_on_from_where_they_were():
    counts = torch.tensor([5, 0, 7])
    for values in ([1.0, 0.0, 0.0], [1.0, 0.0, torch.nan], [0.0, 0.0, 0.0]):
        count_used(counts, torch.tensor([values, values])[:, :, None].expand(2, 3, 4))
    assert counts.tolist() == [7, 0, 8]
    count_used(counts, torch.ones(0, 3, 4))
    assert counts.tolist() == [7, 0, 8]


def test_gradients_are_left_alone():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = x * 2
    assert not used_channels(y, activation=torch.relu_).requires_grad
    y.sum().backward()
    assert x.grad.unique().tolist() == [2.0]


def test_small_values_of_double_precision():
    """They vanish in single precision: 1e-60 is 0 there."""
    for shape in ((3,), (2, 3)):
        values = torch.full(shape, 1e-60, dtype=torch.float64)
        assert used_channels(values, 1e-61, -1).tolist() == [True] * 3
