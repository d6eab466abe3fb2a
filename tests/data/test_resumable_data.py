from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import Dataset, default_collate

from lightning_prune.data.resumable_data import ResumableDataModule


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 11

    def __getitem__(self, key: Any) -> int:
        return int(key[1]) if isinstance(key, tuple) else int(key)


def seen(loader: Any) -> list[int]:
    return [value for batch in loader for value in batch.tolist()]


def loaders(rank: int | None, world_size: int, done: int = 0) -> tuple[Any, Any]:
    data, numbers = ResumableDataModule(4, 0, 7), Numbers()
    if rank is not None:
        epochs = SimpleNamespace(current=SimpleNamespace(processed=done))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank,
            world_size=world_size,
            fit_loop=SimpleNamespace(
                epoch_progress=epochs,
                epoch_loop=SimpleNamespace(batch_progress=epochs),
            ),
            num_training_batches=3,
        )
    return (
        data.training_loader(numbers, default_collate),
        data.evaluation_loader(numbers, default_collate),
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_samples(world_size: int) -> None:
    each = [loaders(rank, world_size) for rank in range(world_size)]
    trained = [value for train, _ in each for value in seen(train)]
    evaluated = [value for _, evaluation in each for value in seen(evaluation)]
    assert sorted(evaluated) == list(range(11))
    assert set(trained) == set(range(11))
    assert len(trained) == 11 + -11 % world_size


def test_order_depends_on_the_epoch_the_trainer_stands_in() -> None:
    first, alone, later = loaders(0, 1)[0], loaders(None, 1)[0], loaders(0, 1, done=2)[0]
    assert seen(first) == seen(alone) == first.sampler.order(0).tolist()
    assert seen(later) == first.sampler.order(2).tolist() != first.sampler.order(0).tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 0), "batch_size=0: pass an integer of at least 1"),
        ((4, -1, 0), r"num_workers=-1: pass an integer in \[0, 512\], worker processes"),
        ((4, 600, 0), r"num_workers=600: pass an integer in \[0, 512\]"),
        ((4, 0, 1.5), "seed=1.5: pass an integer of at least 0"),
        ((True, 0, 0), "batch_size=true: pass an integer of at least 1"),
    ],
)
def test_errors(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ResumableDataModule(*arguments)
