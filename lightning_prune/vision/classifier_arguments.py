"""Arguments of the classifier: what was left out is filled in, and compared with the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_prune.vision.classifier_timm import published_classes
from lightning_prune.vision.classifier_weights import ClassifierWeights


def resolve_classes(
    name: str,
    num_classes: int | None,
    names: Sequence[str] | None,
    found: ClassifierWeights | None,
    heads: Sequence[str],
    pretrained: bool,
) -> int:
    """Return the number of classes: as given, of the names, of the weights, of the published ones.

    Raises:
        ValueError: nothing says it, or names and number differ.
    """
    if num_classes is None and names is not None:
        num_classes = len(names)
    own = None if found is None else found.classes(heads)
    if num_classes is None:
        num_classes = published_classes(name) if pretrained else own
    if num_classes is None and found is not None:
        raise ValueError(
            f"weights={found.path} have no class head of name={name!r} ({', '.join(heads)}): pass "
            "num_classes, or the name that they were trained under"
        )
    if num_classes is None:
        raise ValueError("num_classes is missing: pass the number of classes, or weights")
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"names has {len(names)} entries, num_classes is {num_classes}: pass one name per class"
        )
    if found is not None and found.record is not None and own != num_classes:
        raise ValueError(
            f"num_classes={num_classes}: the pruned weights have {own} classes; leave num_classes "
            "out, or start from dense ones"
        )
    return num_classes


def spread(values: Sequence[float], channels: int) -> list[float]:
    """Return a value for each channel; of another number of channels the mean of all.

    >>> spread([0.5, 0.25, 0.75], 3), spread([0.5, 0.25, 0.75], 1)
    ([0.5, 0.25, 0.75], [0.5])
    """
    if len(values) == channels:
        return list(values)
    return [sum(values) / len(values)] * channels


def check_data(data: Any, hparams: Mapping[str, Any]) -> None:
    """Compare a data module with the arguments of a classifier, as far as it says what it has.

    Raises:
        ValueError: other classes, another order of classes, other channels or image sizes.
    """
    own = {
        "num_classes": hparams["num_classes"],
        "in_channels": hparams["in_channels"],
        "image_size": hparams["image_size"],
    }
    for name, value in own.items():
        found = getattr(data, name, None)
        if found is not None and found != value:
            raise ValueError(
                f"the data have {name}={found}, the network was built with {value}: pass "
                f"model.{name}={found} on the command line, {name}={found} in Python"
            )
    names, known = getattr(data, "names", None), hparams["names"]
    if names is not None and known is not None and list(names) != list(known):
        place = next(i for i, pair in enumerate(zip(names, known, strict=True)) if len({*pair}) > 1)
        raise ValueError(
            f"class {place} of the data is {names[place]!r}, the network calls it "
            f"{known[place]!r}: labels would be mixed up; name the class folders as they were in "
            "training"
        )


def read_batch(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a batch.

    Raises:
        ValueError: it is another kind of batch, such as one of a detector.
    """
    images, labels = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (None, None)
    whole = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
    if isinstance(images, Tensor) and images.ndim == 4 and isinstance(labels, Tensor) and whole:
        return images, labels
    raise ValueError(
        "the data do not give a classifier's batches, images (B, C, H, W) and integer labels (B,): "
        "choose data=image_folder, or data of your own that do"
    )
