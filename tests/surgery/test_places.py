"""Places are drawn again alike, within the output, and mostly where a map is lit."""

import pytest
import torch

from lightning_prune.surgery.places import Places


def test_draws_are_the_same_again_and_differ_between_layers_batches_and_seeds():
    places = Places(16)
    first = places.draw("a", 0, 3, (20, 30))
    assert torch.equal(first, places.draw("a", 0, 3, (20, 30)))
    assert torch.equal(first, Places(16).draw("a", 0, 3, (20, 30)))
    assert first.shape == (3, 16)
    assert int(first.min()) >= 0
    assert int(first.max()) < 600
    for other in (
        places.draw("b", 0, 3, (20, 30)),
        places.draw("a", 1, 3, (20, 30)),
        Places(16, seed=1).draw("a", 0, 3, (20, 30)),
    ):
        assert not torch.equal(first, other)


def test_the_random_state_of_others_is_left_alone():
    before = torch.get_rng_state()
    Places(4, maps=[torch.rand(2, 8, 8)]).draw("a", 0, 2, (8, 8))
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.rand(2, 8, 8)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (4, 4), (12, 20)])
def test_a_map_is_resized_to_the_output(size: tuple[int, int]):
    """The upper left quarter of the second image is lit."""
    lit = torch.zeros(2, 8, 8)
    lit[1, :4, :4] = 1
    number = size[0] * size[1] - 1
    chosen = Places(number, maps=[lit], focus=1.0).draw("a", 0, 2, size)
    rows, columns = chosen // size[1], chosen % size[1]
    inside = (rows < size[0] / 2 + 1) & (columns < size[1] / 2 + 1)
    assert inside[1].all()
    assert not inside[0].all()  # where nothing is lit every place is equally likely


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0])
def test_the_focus_is_the_fraction_drawn_from_the_map(focus: float):
    lit = torch.zeros(1, 32, 32)
    lit[0, 3, 7] = 2.5
    chosen = Places(200, maps=[lit], focus=focus).draw("a", 0, 1, (32, 32))
    on = int((chosen == 3 * 32 + 7).sum())
    assert round(200 * focus) <= on <= round(200 * focus) + 3


def test_maps_that_do_not_fit_or_are_not_finite_do_no_harm():
    broken = torch.full((2, 4, 4), float("nan"))
    negative = -torch.ones(2, 4, 4)
    for maps in ([None], [broken], [negative], [torch.ones(3, 4, 4)], []):
        plain = Places(8).draw("a", 0, 2, (6, 6))
        assert torch.equal(Places(8, maps=maps).draw("a", 0, 2, (6, 6)), plain)
    lit = torch.ones(2, 4, 4)
    for size in ((40,), (3, 4, 5)):  # tokens and movies have no image to look at
        plain = Places(8).draw("a", 0, 2, size)
        assert torch.equal(Places(8, maps=[lit]).draw("a", 0, 2, size), plain)
