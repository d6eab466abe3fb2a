import pytest
import torch
from torch import nn

from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.observe.reader import LayerReader, only, read_objects
from tests.networks import make
from tests.observe.models import Detector, InPlace, detector_batches


def objects(count=5, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, count, generator=generator)
    image = torch.randint(0, images, (count,), generator=generator)
    return ObjectSamples(image, image * 0, image >= 0, x, y)


@pytest.mark.parametrize("shape", [(2, 7, 5, 9), (2, 7, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cells_are_read_one_by_one(shape, layout):
    output = torch.randn(shape).to(memory_format=layout)
    samples = objects()
    found = read_objects(output, samples)
    for row, (image, x, y) in zip(
        found, zip(samples.image, samples.x, samples.y, strict=True), strict=True
    ):
        h, w = int(y * shape[2]), int(x * shape[3])
        assert torch.equal(row, output[image, :, h, w])


def test_borders_are_clamped():
    output = torch.arange(6.0).reshape(1, 1, 2, 3)
    zero = torch.tensor([0, 0])
    samples = ObjectSamples(
        zero, zero, zero == 0, torch.tensor([1.0, -0.1]), torch.tensor([1.0, -0.1])
    )
    assert read_objects(output, samples).tolist() == [[5.0], [0.0]]


def test_cells_of_a_map_size_are_computed_once():
    samples, cells = objects(), {}
    first = read_objects(torch.randn(2, 3, 4, 4), samples, "a", cells)
    assert list(cells) == [(4, 4)]
    cells[4, 4] = tuple(torch.zeros(5, dtype=torch.int64) for _ in range(2))
    again = read_objects(torch.ones(2, 3, 4, 4), samples, "b", cells)
    assert first.shape == again.shape


def test_without_positions_the_spatial_mean():
    samples = objects()._replace(x=None, y=None)
    for shape in ((2, 7, 5, 9), (2, 7, 11), (2, 7)):
        output = torch.randn(shape)
        mean = output if len(shape) == 2 else output.flatten(2).mean(2)
        torch.testing.assert_close(read_objects(output, samples), mean[samples.image])


def test_positions_need_a_feature_map():
    with pytest.raises(ValueError, match=r"conv has an output of shape \(2, 7, 11\)"):
        read_objects(torch.randn(2, 7, 11), objects(), "conv")


def test_tokens_of_a_linear_layer_have_their_channels_last():
    net = nn.Sequential(nn.Linear(6, 4))
    reader, tokens = LayerReader(["0"]), torch.randn(2, 9, 6)
    samples = objects()._replace(x=None, y=None)
    with reader.watch(net):
        output = net(tokens)
        (rows,) = reader.take(samples, samples.correct)
    torch.testing.assert_close(rows, output.mean(1)[samples.image])


@pytest.mark.parametrize("known", [True, False])
def test_read_at_once_equals_kept_maps_and_keeps_no_map(known):
    net, (images, samples) = make(Detector).eval(), detector_batches(1)[0]
    reader = LayerReader(["stem.0", "shared"])
    with torch.no_grad(), reader.watch(net):
        if known:
            reader.expect(samples)
        net(images)
        kept = {name: [o.shape for o in outputs] for name, outputs in reader._outputs.items()}
        maps = {"stem.0": [(3, 8, 24, 16)], "shared": [(3, 12, 12, 8)] * 2}
        rows = {"stem.0": [(6, 8)], "shared": [(6, 12)] * 2}
        assert kept == (rows if known else maps)
        first, second = reader.take(samples, samples.correct)
        assert not reader._outputs
    assert reader.widths == (8, 12)
    assert first.shape == second.shape == (int(samples.correct.sum()), 20)
    assert torch.equal(first[:, :8], second[:, :8])
    assert not torch.equal(first[:, 8:], second[:, 8:])


def test_overwritten_outputs_are_noticed_once():
    net, images = make(InPlace), torch.randn(2, 3, 8, 8)
    reader = LayerReader(["first", "second"])
    with torch.no_grad(), reader.watch(net):
        net(images)
        assert reader.copy_overwritten()
        net(images)
        assert not reader.copy_overwritten()
        samples = objects()
        (rows,) = reader.take(samples, samples.correct)
    torch.testing.assert_close(rows[:, :6], read_objects(net.first(images), samples))


def test_outputs_that_are_no_tensor_are_refused():
    net = nn.Sequential(nn.LSTM(3, 4))
    with LayerReader(["0"]).watch(net), pytest.raises(ValueError, match="'0' gives a tuple"):
        net(torch.randn(2, 5, 3))


def test_only_takes_masks_and_keeps_what_is_absent():
    samples = objects()._replace(y=None)
    some = only(samples, torch.tensor([True, False, False, True, False]))
    assert torch.equal(some.x, samples.x[[0, 3]])
    assert some.y is None
    assert some.width is None
