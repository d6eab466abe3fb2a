import pytest
import torch

from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.observe.background import add_background


def crowd(count=40, images=4, size=0.35, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, images, (count,), generator=generator)
    x, y = torch.rand(2, count, generator=generator)
    extent = torch.full((count,), size)
    return ObjectSamples(image, image % 2, x > 0.5, x, y, extent, extent / 2)


def test_points_lie_outside_every_box_of_their_image():
    samples = crowd(count=12)
    more = add_background(samples, 2, torch.Generator().manual_seed(1))
    old, new = len(samples.label), len(more.label)
    assert new == 2 * old
    assert torch.equal(more.image[old:], samples.image)
    for m in range(old, new):
        assert more.label[m] == 2
        assert more.correct[m]
        assert 0 <= more.x[m] <= 1
        assert 0 <= more.y[m] <= 1
        assert more.width[m] == more.height[m] == 0
        for n in range(old):
            if samples.image[n] == more.image[m]:
                beside = (more.x[m] - samples.x[n]).abs() > samples.width[n] / 2
                above = (more.y[m] - samples.y[n]).abs() > samples.height[n] / 2
                assert beside or above


def test_undetected_objects_are_no_background_either():
    samples = crowd(count=8, images=1, size=0.5)._replace(correct=torch.zeros(8, dtype=torch.bool))
    more = add_background(samples, 2, torch.Generator().manual_seed(0))
    for m in range(8, len(more.label)):
        near_x = (more.x[m] - samples.x).abs() <= samples.width / 2
        near_y = (more.y[m] - samples.y).abs() <= samples.height / 2
        assert not (near_x & near_y).any()


def test_objects_come_first_and_unchanged():
    samples = crowd()
    more = add_background(samples, 2, torch.Generator().manual_seed(1))
    for name, value in samples._asdict().items():
        assert torch.equal(getattr(more, name)[: len(samples.label)], value)


def test_seed_alone_decides_and_the_global_state_is_left_alone():
    samples = crowd()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = (add_background(samples, 2, torch.Generator().manual_seed(7)) for _ in "ab")
    third = add_background(samples, 2, torch.Generator().manual_seed(8))
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, third.x)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_without_a_free_point_gets_none():
    samples = crowd(count=3, images=2)._replace(
        image=torch.tensor([0, 0, 1]), x=torch.full((3,), 0.5), y=torch.full((3,), 0.5),
        width=torch.tensor([1.0, 0.1, 0.1]), height=torch.tensor([1.0, 0.1, 0.1]),
    )  # fmt: skip
    more = add_background(samples, 2, torch.Generator().manual_seed(0))
    assert more.image.tolist() == [0, 0, 1, 1]


def test_points_without_extent_leave_everything_free():
    samples = crowd()._replace(width=None, height=None)
    more = add_background(samples, 2, torch.Generator().manual_seed(0))
    assert len(more.label) == 2 * len(samples.label)
    assert more.width is None


def test_nothing_in_nothing_out_and_positions_are_needed():
    empty = ObjectSamples(*(value[:0] for value in crowd()))
    assert add_background(empty, 2, torch.Generator()) is empty
    with pytest.raises(ValueError, match="not for a classifier"):
        add_background(crowd()._replace(x=None, y=None), 2, torch.Generator())
