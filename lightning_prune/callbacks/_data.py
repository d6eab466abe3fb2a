"""Where callbacks get their data from: an example input, and the training split undisturbed."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_prune.callbacks.trainer.precision import on_device
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.model_inputs import batch_length, model_inputs
from lightning_prune.observe.classifier import classifier_objects, classifier_samples


def forward_batch(model: Any, batch: Any) -> Any:
    """Run a module's forward pass on a batch; tuples and dicts of inputs are its arguments."""
    return call(model, model_inputs(model, batch))


def samples_function(pl_module: pl.LightningModule) -> Callable[[Any, Any], ObjectSamples]:
    """Return the module's own ``object_samples``, or the default for classifiers."""
    own = getattr(pl_module, "object_samples", None)
    return own if callable(own) else classifier_samples


def objects_function(pl_module: pl.LightningModule) -> Callable[[Any], ObjectSamples] | None:
    """Return what names a batch's objects before the forward pass, or None where nothing does.

    The module's own ``object_positions``, or the default for classifiers.
    """
    own: Callable[[Any], ObjectSamples] | None = getattr(pl_module, "object_positions", None)
    if own is not None:
        return own
    return None if callable(getattr(pl_module, "object_samples", None)) else classifier_objects


def example_input(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any | None:
    """Return an input to trace with, on the module's device; None while there is none yet.

    The module's ``example_input_array``, or the inputs of the first training batch.
    """
    example = pl_module.example_input_array
    if example is None:
        if trainer.train_dataloader is None:
            return None
        # A loader's iterator draws from the random state, which training must find as it was.
        with untouched(pl_module):
            batch = next(iter(collection_batches(trainer, pl_module, 1)))
        example = model_inputs(pl_module, batch)
    moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(example))
    return tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, moved)


def collection_loader(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterable[Any]:
    """Return the training split with evaluation transforms, or as it is.

    Raises:
        TypeError: the training data are no single DataLoader, and nothing else is defined.
    """
    for owner in (getattr(trainer, "datamodule", None), pl_module):
        make = getattr(owner, "collection_dataloader", None)
        if callable(make):
            made: Iterable[Any] = make()
            return made
    loader = trainer.train_dataloader
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"the training data is a {type(loader).__name__}: define collection_dataloader() on "
            "the LightningDataModule (the training split with evaluation transforms)"
        )
    if isinstance(loader.dataset, IterableDataset):
        return loader
    return DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)


def _share_of_rank(trainer: pl.Trainer, loader: Iterable[Any]) -> Iterable[Any]:
    """Split batches over ranks; a map-style loader never reads the others'."""
    if trainer.world_size == 1:
        return loader
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        length = len(loader.dataset)  # type: ignore[arg-type]
        mine = range(trainer.global_rank, length, trainer.world_size)
        part = Subset(loader.dataset, list(mine))
        return DataLoader(part, batch_size=loader.batch_size, collate_fn=loader.collate_fn)
    return islice(loader, trainer.global_rank, None, trainer.world_size)


def collection_batches(
    trainer: pl.Trainer, pl_module: pl.LightningModule, images: int | None
) -> Iterator[Any]:
    """Yield batches of the training split on the device, about ``images`` images over all ranks.

    From ``collection_dataloader()`` of the DataModule or LightningModule (the training split with
    evaluation transforms); without one, from the training data set in its own order.
    """
    seen = 0
    most = None if images is None else -(-images // trainer.world_size)
    loader = _share_of_rank(trainer, collection_loader(trainer, pl_module))
    for batch in on_device(trainer, loader):
        yield batch
        seen += batch_length(batch)
        if most is not None and seen >= most:
            return


def has_collection_loader(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Return whether the training split can be had without augmentation; warn where it cannot."""
    owners = (getattr(trainer, "datamodule", None), pl_module)
    if any(callable(getattr(owner, "collection_dataloader", None)) for owner in owners):
        return True
    warnings.warn(
        "no collection_dataloader() on the DataModule or LightningModule: images are read "
        "from the training data set with its own (perhaps augmenting) transforms",
        stacklevel=2,
    )
    return False


def class_names(trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[str]:
    """Return the names of the classes, of the module or else of the data; empty: not known."""
    hparams = dict(pl_module.hparams)
    data = getattr(trainer, "datamodule", None)
    found = (hparams.get("names"), getattr(data, "label_names", None), getattr(data, "names", None))
    for names in found:
        if isinstance(names, list | tuple) and names:
            return [str(name) for name in names]
    return []
