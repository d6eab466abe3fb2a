import torch
from torch import Tensor

from lightning_prune.observe.reader import read_objects
from lightning_prune.vision.segmentation_pixels import pixels_at, sample_pixels

IGNORE = 255


def masks(count: int = 3, height: int = 48, width: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (count, 1, height // 8, width // 8), generator=generator).float()
    found = torch.nn.functional.interpolate(coarse, scale_factor=8).long()[:, 0]
    found[found == 3] = IGNORE
    return found


def test_every_class_of_an_image_has_its_pixels() -> None:
    target = masks()
    target[0, 0, :3] = 7  # few of a class: all of them
    samples = sample_pixels(target, 16, IGNORE)
    assert torch.equal(pixels_at(target, samples), samples.label)
    for image in range(3):
        for label in (0, 1, 2, 7, IGNORE):
            there = int((target[image] == label).sum())
            found = int(((samples.image == image) & (samples.label == label)).sum())
            assert found == (0 if label == IGNORE else min(there, 16))
    assert samples.correct.all()
    places = torch.stack([samples.image, samples.x, samples.y], 1)
    assert len(places.unique(dim=0)) == len(places)


def test_which_pixels_depends_on_the_mask_alone() -> None:
    target = masks()
    whole = sample_pixels(target, 5, IGNORE)
    torch.manual_seed(3)
    parts = [sample_pixels(target[index : index + 1], 5, IGNORE) for index in range(3)]
    for name in ("label", "x", "y"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))


def test_pixels_are_spread_over_their_region() -> None:
    # Of 64 cells of 16 x 16 pixels that 64 samples of one class may be in: random ones miss 37 %.
    samples = sample_pixels(torch.zeros(1, 128, 128, dtype=torch.long), 64, IGNORE)
    cells = (samples.y * 8).long() * 8 + (samples.x * 8).long()
    assert len(cells.unique()) >= 52


def test_layers_are_read_at_the_pixel() -> None:
    target = masks()
    samples = sample_pixels(target, 20, IGNORE)
    maps = target[:, None].float()  # an output whose one channel is the class
    assert torch.equal(read_objects(maps, samples)[:, 0], samples.label.float())


def test_an_image_without_a_pixel_that_counts_gives_none() -> None:
    assert len(sample_pixels(torch.full((2, 4, 4), IGNORE), 3, IGNORE).label) == 0
