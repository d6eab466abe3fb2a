from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_prune.callbacks._data import (
    batch_length,
    collection_batches,
    example_input,
    has_collection_loader,
)
from lightning_prune.observe.activations import ObjectActivations, merge_activations
from tests.callbacks.classifiers import Classifier


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(20.0))


def fake(loader, rank=0, ranks=1):
    strategy = SimpleNamespace(batch_to_device=lambda batch: batch)
    module = SimpleNamespace(
        _on_before_batch_transfer=lambda batch, dataloader_idx: batch,
        example_input_array=None,
        modules=lambda: [],
        parameters=lambda: [],
    )
    trainer = SimpleNamespace(
        train_dataloader=loader,
        world_size=ranks,
        global_rank=rank,
        strategy=strategy,
        precision_plugin=SimpleNamespace(convert_input=lambda batch: batch),
        lightning_module=module,
    )
    return trainer, module


def numbers(loader, images, rank=0, ranks=1):
    batches = collection_batches(*fake(loader, rank, ranks), images)
    return [batch[0].tolist() if isinstance(batch, list) else batch.tolist() for batch in batches]


def shuffled(count=20, batch=4):
    return DataLoader(TensorDataset(torch.arange(count)), batch, shuffle=True, drop_last=True)


def test_the_training_set_is_read_in_its_own_order_until_there_is_enough():
    assert numbers(shuffled(10), None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert numbers(shuffled(), 7) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert numbers(shuffled(), 100) == [list(range(i, i + 4)) for i in range(0, 20, 4)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_images(ranks):
    parts = [numbers(shuffled(), None, rank, ranks) for rank in range(ranks)]
    seen = sorted(number for part in parts for batch in part for number in batch)
    assert seen == list(range(20))
    few = [numbers(shuffled(), 6, rank, ranks) for rank in range(ranks)]
    assert [len(part) for part in few] == [1] * ranks


def test_streams_are_shared_by_batches():
    loader = DataLoader(Stream(), 4)
    assert numbers(loader, None, 1, 2) == [[4, 5, 6, 7], [12, 13, 14, 15]]
    assert numbers(loader, 8) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_other_loaders_need_a_collection_loader():
    with pytest.raises(TypeError, match=r"training data is a list: define collection_dataloader"):
        numbers([torch.zeros(2)], 4)


def test_the_datamodules_loader_comes_before_the_modules():
    trainer, module = fake(shuffled())
    module.collection_dataloader = lambda: [torch.ones(2)]
    assert next(collection_batches(trainer, module, 1)).tolist() == [1.0, 1.0]
    trainer.datamodule = SimpleNamespace(collection_dataloader=lambda: [torch.zeros(2)])
    assert next(collection_batches(trainer, module, 1)).tolist() == [0.0, 0.0]
    assert has_collection_loader(trainer, module)


def test_the_first_batch_serves_as_example_and_leaves_the_random_state():
    trainer, module = fake(shuffled())
    before = torch.get_rng_state()
    assert example_input(trainer, module).tolist() == [0, 1, 2, 3]
    assert torch.equal(torch.get_rng_state(), before)
    model = Classifier()
    assert example_input(trainer, model).data_ptr() != model.example_input_array.data_ptr()


def test_length_of_a_batch():
    pictures = torch.zeros(3, 1)
    assert batch_length(({"scale": torch.tensor(2.0)}, pictures)) == 3
    assert batch_length("nothing") == 0


def test_parts_of_other_layers_are_not_merged():
    with pytest.raises(ValueError, match="all of the same layers"):
        merge_activations([ObjectActivations(("a",)), ObjectActivations(("b",))])
    merged = merge_activations([ObjectActivations(("a",), objects=3), ObjectActivations(("a",))])
    assert (merged.objects, merged.moments) == (3, None)
