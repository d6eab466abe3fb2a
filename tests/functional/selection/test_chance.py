import torch

from lightning_prune.functional.selection.chance import against_chance
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.separability import separability_matrix


def matrix(values, label, classes=4):
    found = class_moments(values, label, classes)
    return separability_matrix(found.mean, found.variance, found.count)


def compared(shift, seed, objects=80, channels=16):
    """Heavy-tailed activations in which one of four channels answers to the class."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (objects,), generator=generator)
    values = torch.randn(objects, channels, generator=generator).exp()
    values[:, :: channels // 4] += shift * label[:, None]
    shuffled = [
        matrix(values, label[torch.randperm(objects, generator=generator)]) for _ in range(8)
    ]
    return against_chance(matrix(values, label), shuffled)


def test_noise_is_told_from_classes():
    noise = [compared(0.0, seed) for seed in range(40)]
    assert sum(chance.is_noise for chance in noise) >= 38
    # Without an effect the labels are one random labelling among others.
    middle = sum(chance.separability / chance.at_random for chance in noise) / 40
    assert 0.95 < middle < 1.05
    assert not any(compared(3.0, seed).is_noise for seed in range(40))


def test_fewer_objects_pretend_to_separate_more_and_are_judged_alike():
    few, many = compared(0.0, 1, objects=20), compared(0.0, 1, objects=320)
    assert few.separability > 3 * many.separability
    assert few.is_noise
    assert many.is_noise


def test_pairs_without_objects_do_not_dilute_the_mean():
    label = torch.arange(40) % 2
    values = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    dealt = [torch.roll(label, 20 * i) for i in range(3)]
    two = against_chance(matrix(values, label, 2), [matrix(values, one, 2) for one in dealt])
    five = against_chance(matrix(values, label, 5), [matrix(values, one, 5) for one in dealt])
    assert two == five


def test_without_two_labellings_there_is_nothing_to_compare():
    some = torch.ones(3, 1)
    assert against_chance(some, []) is None
    assert against_chance(some, [some]) is None
    assert against_chance(torch.zeros(3, 1), [some, some]) is None
