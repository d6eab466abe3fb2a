import pytest
import torch

from lightning_prune.functional.selection.moments import class_moments, merge_moments
from lightning_prune.observe import object_sample
from lightning_prune.observe.activations import ObjectActivations, merge_activations
from lightning_prune.observe.object_sample import ObjectSample

EVERY = slice(None)
CLASSES, CHANNELS = 4, 6


def objects(count=80, seed=0):
    """Objects of one class after the other, as a folder of folders has them."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) * CLASSES // count
    values = torch.randn(count, CHANNELS, generator=generator, dtype=torch.float64)
    return values + 3 * label[:, None], label


def sample(values, label, piece, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pieces = zip(values.split(piece), label.split(piece), strict=True)
    return ObjectSample.merged([ObjectSample.of(v, y, generator) for v, y in pieces])


def same(ours, theirs):
    assert torch.equal(ours.count, theirs.count)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


@pytest.mark.parametrize("piece", [80, 20, 7, 1])
def test_random_labels_do_not_depend_on_the_pieces_that_objects_come_in(piece):
    """A piece may hold one class only: its own labels, shuffled, would be the real ones."""
    values, label = objects()
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    whole = sample(values[order], label[order], 80).shuffled(EVERY, CLASSES, 3, seed=5)
    for ours, theirs in zip(
        sample(values, label, piece).shuffled(EVERY, CLASSES, 3, seed=5), whole, strict=True
    ):
        same(ours, theirs)
        # Oracle: the classes' means are 3 apart; those of random labels all near the middle.
        assert float((ours.mean - 4.5).abs().max()) < 2.5


def test_a_shuffle_deals_out_all_labels_once_more():
    values, label = objects()
    found = sample(values, label, 9)
    assert found.is_all
    assert found.seen == 80
    real, share = class_moments(values, label, CLASSES), torch.full((CLASSES,), 1 / CLASSES)
    same(found.moments(EVERY, CLASSES), real)
    dealt = found.shuffled(slice(2, 4), CLASSES, 2, seed=0)
    for other in dealt:
        assert torch.equal(other.count, real.count)
        torch.testing.assert_close(other.mean @ share.double(), (real.mean @ share.double())[2:4])
    assert not torch.allclose(dealt[0].mean, dealt[1].mean)
    again = found.shuffled(slice(2, 4), CLASSES, 2, seed=0)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(dealt, again, strict=True))


@pytest.mark.parametrize("piece", [80, 7])
def test_halves_part_every_class_and_do_not_depend_on_the_order(piece):
    values, label = objects()
    values, label = values[:-1], label[:-1]  # 19 objects in the last class
    real = class_moments(values, label, CLASSES)
    order = torch.randperm(79, generator=torch.Generator().manual_seed(1))
    found = sample(values, label, piece).halves(EVERY, CLASSES, 3, seed=5)
    other = sample(values[order], label[order], 79).halves(EVERY, CLASSES, 3, seed=5)
    assert len(found) == 3
    for (first, second), again in zip(found, other, strict=True):
        assert first.count.tolist() == [10, 10, 10, 9]
        assert second.count.tolist() == [10, 10, 10, 10]
        same(merge_moments(first, second), real)  # each object is in one of them
        same(first, again[0])
        same(second, again[1])
    assert not torch.allclose(found[0][0].mean, found[1][0].mean)
    some = sample(values, label, piece).halves(slice(2, 4), CLASSES, 3, seed=5)
    torch.testing.assert_close(some[0][0].mean, found[0][0].mean[2:4])


def test_where_there_is_no_room_every_object_is_as_likely_to_stay(monkeypatch):
    monkeypatch.setattr(object_sample, "_VALUES", 20 * CHANNELS + 5)
    values, label = objects()
    values[:, 0] = torch.arange(80)
    stayed = torch.zeros(80)
    for seed in range(400):
        found = sample(values, label, 9, seed)
        assert len(found.label) == len(found.key) == 20
        assert found.seen == 80
        assert not found.is_all
        index = found.values[:, 0].long()
        assert torch.equal(found.label, label[index])
        assert len(index.unique()) == 20
        stayed[index] += 1
    # Binomial: 100 of 400 runs, standard deviation 8.7.
    assert float(stayed.min()) > 65
    assert float(stayed.max()) < 135


def test_parts_of_several_processes_give_the_labels_of_one(monkeypatch):
    """Every second object to a process, as data sets are shared out: each sees two classes."""
    values, label = objects()
    label = torch.arange(80) % CLASSES

    def seen(rows, seed):
        found = ObjectActivations(("a",), (CHANNELS,), shuffles=3, seed=seed)
        found._pending.append((values[rows], label[rows]))
        found._merge_pending()
        return found

    alone = seen(slice(None), 7)
    both = merge_activations([seen(slice(0, None, 2), 7), seen(slice(1, None, 2), 8)])
    assert len(both.shuffled_of("a")) == 3
    for ours, theirs in zip(both.shuffled_of("a"), alone.shuffled_of("a"), strict=True):
        same(ours, theirs)
    same(both.sampled_of("a"), both.of("a"))
    for ours, theirs in zip(both.halves_of("a"), alone.halves_of("a"), strict=True):
        same(ours[0], theirs[0])
    assert both.sampled == 1.0
    monkeypatch.setattr(object_sample, "_VALUES", 20 * CHANNELS)
    few = merge_activations([seen(slice(0, None, 2), 7), seen(slice(1, None, 2), 8)])
    assert few.sampled == 0.25
    assert int(few.of("a").count.sum()) == 80
    assert int(few.sampled_of("a").count.sum()) == 20
    assert torch.equal(few.shuffled_of("a")[0].count, few.sampled_of("a").count)


def test_without_objects_there_is_no_sample():
    nothing = ObjectActivations(("a",), shuffles=3)
    assert nothing.shuffled_of("a") == []
    assert nothing.halves_of("a") == []
    assert nothing.sampled == 1.0
    with pytest.raises(ValueError, match="no object was seen at layer 'a'"):
        nothing.sampled_of("a")
