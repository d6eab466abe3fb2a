import numpy as np
import pytest
import torch

from lightning_prune.data.sampler import Draw, PermutationSampler, ShardSampler

TEN = torch.utils.data.TensorDataset(torch.arange(10))


def test_every_sample_once_in_an_order_of_the_epoch() -> None:
    sampler = PermutationSampler(TEN, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert {draw.epoch for draw in draws} == {epoch}
        assert sorted(draw.sample for draw in draws) == list(range(10))
        orders.append([draw.sample for draw in draws])
        assert orders[-1] == np.random.default_rng((3, epoch)).permutation(10).tolist()
    assert orders[0] != orders[1]
    assert orders[0] != [draw.sample for draw in PermutationSampler(TEN, seed=4)]


def test_start_holds_for_one_pass() -> None:
    sampler = PermutationSampler(TEN)
    whole = list(sampler)
    sampler.seek(0, 7)
    assert list(sampler) == whole[7:]
    assert list(sampler) == whole


def test_another_epoch_forgets_the_start() -> None:
    sampler = PermutationSampler(TEN)
    sampler.seek(2, 4)
    sampler.set_epoch(2)
    assert len(list(sampler)) == 6
    sampler.seek(2, 4)
    sampler.set_epoch(3)
    assert len(list(sampler)) == 10


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_order(world_size: int) -> None:
    samplers = [PermutationSampler(TEN, 1, rank, world_size) for rank in range(world_size)]
    parts = [[draw.sample for draw in sampler] for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])} == {-(-10 // world_size)}
    interleaved = [sample for step in zip(*parts, strict=True) for sample in step]
    assert interleaved[:10] == [draw.sample for draw in PermutationSampler(TEN, 1)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 10])
def test_shards_hold_every_sample_exactly_once(world_size: int) -> None:
    shards = [ShardSampler(TEN, rank, world_size) for rank in range(world_size)]
    assert sorted(sample for shard in shards for sample in shard) == list(range(10))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_more_ranks_than_samples() -> None:
    one = torch.utils.data.TensorDataset(torch.arange(1))
    assert [list(ShardSampler(one, rank, 3)) for rank in range(3)] == [[0], [0], [0]]


def test_refuses_a_rank_outside_the_world() -> None:
    with pytest.raises(ValueError, match=r"rank=2 is outside \[0, 2\)"):
        PermutationSampler(TEN, 0, 2, 2)
    with pytest.raises(ValueError, match="neither can be negative"):
        PermutationSampler(TEN).seek(-1, 0)


def test_draw_is_a_plain_pair() -> None:
    assert Draw(1, 2) == (1, 2)
