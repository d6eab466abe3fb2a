import itertools

import numpy as np
import pytest
import torch

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.profiles import count_profiles, estimation_noise
from lightning_prune.functional.selection.separability import separability_matrix


def activations(channels, profiles, classes, each, seed, shared=0.0):
    """Gaussian activations (N, C) whose class means follow one of some profiles, any scale."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = distinct(draw(4 * profiles, classes), profiles)[torch.arange(channels) % profiles]
    label = torch.arange(each * classes) % classes
    noise = (1 - shared) ** 0.5 * draw(len(label), channels) + shared**0.5 * draw(len(label), 1)
    scale = 0.1 + 3 * torch.rand(channels, generator=generator, dtype=torch.float64)
    return (centres[:, label].T + noise) * scale, label


def distinct(points, wanted):
    """Choose points that are far apart: each the farthest from those before it."""
    chosen = [0]
    for _ in range(wanted - 1):
        chosen.append(int(torch.cdist(points, points[chosen]).amin(1).argmax()))
    return points[chosen]


def separability(values, label, classes):
    found = class_moments(values, label, classes)
    return separability_matrix(found.mean, found.variance, found.count)


def counted(values, label, classes, seed=0, times=8):
    """Count beside the noise of random halves of each class."""
    generator = torch.Generator().manual_seed(seed)
    noise = []
    for _ in range(times):
        place = torch.rand(len(label), generator=generator).argsort()
        order = place[label[place].argsort(stable=True)]
        first, second = order[::2], order[1::2]
        noise.append(
            estimation_noise(
                *(separability(values[half], label[half], classes) for half in (first, second))
            )
        )
    return count_profiles(separability(values, label, classes), noise)


def brute_force(matrix, noise):
    """Complete linkage by its definition: the two clusters whose farthest members are nearest."""

    def apart(rows, i, j):
        return np.sqrt(np.mean((rows[i] - rows[j]) ** 2))

    def clustered(distance):
        clusters = [[i] for i in range(len(matrix))]
        while len(clusters) > 1:
            pairs = itertools.combinations(clusters, 2)
            far = [(max(apart(matrix.numpy(), i, j) for i in a for j in b), a, b) for a, b in pairs]
            least, one, other = min(far, key=lambda found: found[0])
            if least > distance:
                break
            clusters = [c for c in clusters if c is not one and c is not other] + [one + other]
        return clusters

    pairs = list(itertools.combinations(range(len(matrix)), 2))
    distance = max(apart(one.numpy(), i, j) for one in noise for i, j in pairs)
    return len(clustered(distance)), distance


@pytest.mark.parametrize(
    ("channels", "classes", "each"),
    [(16, 6, 300), (16, 20, 60), (32, 10, 100), (64, 6, 300), (64, 10, 100), (128, 10, 100)],
)  # fmt: skip
def test_the_count_is_within_one_of_the_profiles_up_to_half_the_channels(channels, classes, each):
    for profiles in sorted({1, 2, 3, channels // 4, channels // 2}):
        values, label = activations(channels, profiles, classes, each, seed=profiles)
        assert abs(counted(values, label, classes).count - profiles) <= 1, profiles


@pytest.mark.parametrize("each", [12, 40, 400])
def test_few_objects_tell_fewer_profiles_apart_and_never_invent_them(each):
    found = []
    for profiles in (1, 2, 8):
        values, label = activations(32, profiles, 8, each, seed=profiles)
        found.append(counted(values, label, 8).count)
    assert all(count <= profiles + 1 for count, profiles in zip(found, (1, 2, 8), strict=True))
    assert each == 12 or found[2] >= 7


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95])
def test_noise_that_channels_share_counts_no_more_than_their_own(shared):
    for profiles in (1, 4):
        values, label = activations(32, profiles, 6, 200, seed=1, shared=shared)
        assert abs(counted(values, label, 6).count - profiles) <= 1


@pytest.mark.parametrize("each", [10, 50, 400])
@pytest.mark.parametrize("classes", [2, 4, 10])
def test_without_any_class_information_there_is_one_profile(classes, each):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        label = torch.arange(each * classes) % classes
        values = torch.randn(len(label), 32, generator=generator, dtype=torch.float64).exp()
        assert counted(values, label, classes, seed).count <= 2


def test_labels_at_random_say_too_little_of_the_errors_where_classes_differ():
    """Why the noise is that of halves: eight shuffles find 30 profiles where there are 4."""
    values, label = activations(64, 4, 6, 200, seed=0)
    generator = torch.Generator().manual_seed(0)
    shuffled = [
        separability(values, label[torch.randperm(len(label), generator=generator)], 6)
        for _ in range(8)
    ]
    assert count_profiles(separability(values, label, 6), shuffled).count > 30
    assert abs(counted(values, label, 6).count - 4) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_a_brute_force_reference_counts_the_same(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(9, 3, generator=generator, dtype=torch.float64)
    noise = [0.1 * torch.randn(9, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    ours, (count, distance) = count_profiles(matrix, noise), brute_force(matrix, noise)
    assert ours.count == count
    assert ours.distance == pytest.approx(distance, rel=1e-12)
    assert 1 < count < 9  # else the reference says little


def test_order_of_channels_and_pairs_does_not_matter_and_copies_are_no_profiles():
    generator = torch.Generator().manual_seed(3)
    matrix = 2 * torch.rand(12, 5, generator=generator, dtype=torch.float64)
    noise = [0.05 * torch.randn(12, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    found = count_profiles(matrix, noise)
    rows, pairs = torch.randperm(12, generator=generator), torch.randperm(5, generator=generator)
    moved = count_profiles(matrix[rows][:, pairs], [one[rows][:, pairs] for one in noise])
    assert moved.count == found.count
    assert moved.distance == pytest.approx(found.distance, rel=1e-12)
    twice = count_profiles(matrix.repeat(2, 1), [one.repeat(2, 1) for one in noise])
    assert twice == found


def test_pairs_without_an_estimate_are_left_out():
    generator = torch.Generator().manual_seed(4)
    matrix = 2 * torch.rand(10, 6, generator=generator, dtype=torch.float64)
    noise = [0.05 * torch.randn(10, 6, generator=generator, dtype=torch.float64)]
    alone = count_profiles(matrix[:, :4], [noise[0][:, :4]])
    noise[0][:, 4:] = torch.nan
    assert count_profiles(matrix, noise) == alone
    nothing = count_profiles(matrix, [torch.full_like(matrix, torch.nan)])
    assert (nothing.count, nothing.distance) == (1, 2.0)


@pytest.mark.parametrize("pairs", [6, 45])
@pytest.mark.parametrize("spread", [0.003, 0.01, 0.02])
@pytest.mark.parametrize("channels", [16, 64, 128])
def test_rows_alone_show_profiles_that_are_far_apart(channels, spread, pairs):
    """The published knee is near half of the channels for each of these."""
    for profiles in (2, channels // 8, channels // 4, channels // 2, channels):
        generator = torch.Generator().manual_seed(profiles)
        centres = 2 * torch.rand(profiles, pairs, generator=generator, dtype=torch.float64)
        rows = centres[torch.arange(channels) % profiles]
        rows = rows + spread * torch.randn(channels, pairs, generator=generator).double()
        assert abs(count_profiles(rows.clamp(0, 2)).count - profiles) <= 1, profiles


def test_rows_that_hardly_differ_are_one_profile():
    assert count_profiles(torch.zeros(8, 3)).count == 1
    assert count_profiles(torch.linspace(1.0, 1.019, 8)[:, None]).count == 1


def test_the_count_stands_beside_the_knee():
    rows = torch.arange(24)[:, None] % 4 * 0.4 + torch.linspace(0.0, 0.01, 24)[:, None]
    found = cluster_channels(rows, embedding="pca")
    assert found.count == 4
    assert found.knee is not None
    assert cluster_channels(rows, embedding="pca", noise=[rows]).count == 1


@pytest.mark.parametrize(
    ("matrix", "noise", "message"),
    [
        (torch.zeros(3), None, r"matrix of shape \(3,\): pass finite separability"),
        (torch.tensor([[torch.nan]]), None, "pass finite separability"),
        (torch.zeros(3, 2), [], r"for a matrix of shape \(3, 2\): pass at least one matrix"),
        (torch.zeros(3, 2), [torch.zeros(3, 1)], r"noise of shapes \[\(3, 1\)\] for a matrix"),
    ],
)
def test_wrong_arguments(matrix, noise, message):
    with pytest.raises(ValueError, match=message):
        count_profiles(matrix, noise)
