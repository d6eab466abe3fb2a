"""Make a trained network smaller with nothing but pictures, in one call."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.arguments import Count
from lightning_prune.engine.compressed import Compressed
from lightning_prune.engine.compression import Compression
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.validation import validated


def _plain(items: Iterable[Any], _title: str) -> Iterable[Any]:
    return items


@validated
def compress(
    module: nn.Module,
    batches: Iterable[Any],
    mac_target: Annotated[
        float, Between(0, 1, "the fraction of the MACs that remains", "()")
    ] = 0.5,
    *,
    steps: Annotated[int, AtLeast(0, "label-free steps")] = 300,
    layers: Sequence[str] | None = None,
    round_to: Count = 8,
    least: Annotated[
        float, Between(0, 1, "the smallest fraction of channels that stays", "[)")
    ] = 0.125,
    mirror: bool = False,
    seed: int = 0,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = _plain,
) -> Compressed:
    """Cut a trained network to a fraction of its MACs, without labels and without training it.

    1. One pass over the pictures measures what the layers that read a group of channels lose at
       each width, the others refitted (``repaired_losses``); widths are those of the least loss
       for the MACs, tried on a part of the pictures.
    2. The dense and the masked network walk through the pictures side by side, front to back: each
       layer is fitted to what the dense one gives, each batch norm takes new statistics
       (``walked_refit``). Then the masked channels are cut out.
    3. A few hundred steps draw the outputs towards those of the dense network. Every fifth picture
       is held back from all of this: where agreement on them becomes worse, steps are taken back.

    Args:
        module: Any trained module of convolutions and linear layers, a LightningModule too; it is
            changed in place, and is in eval mode afterwards. What it may have of its own:
            ``saliency(outputs)`` (B, h, w) says where in an image something is,
            ``distillation_loss(outputs, dense_outputs)`` is what the steps make smaller,
            ``agreement(outputs, dense_outputs)`` of lists says how far two networks agree.
        batches: A loader, or batches of inputs; of pairs and dicts the inputs are taken as
            ``forward`` wants them. All are kept in memory: 100 to 300 images are enough.
        mac_target: Fraction of the MACs that remains.
        steps: Label-free steps; 0: none.
        layers: Names or patterns of layers whose channels may go; None: all.
        round_to: Widths are multiples of it.
        least: Smallest fraction of a group's channels that stays.
        mirror: Fit mirrored images too, where images keep their meaning.
        seed: Of what is drawn.
        progress: ``(items, title) -> items``; shows how far it has come.

    Returns:
        The module, its MACs, how far it agrees with the dense one, and what every part took.

    Raises:
        ValueError: an argument is out of range, no channel can go, the target is out of reach, or
            there is no picture.

    Source: Y. He, X. Zhang, J. Sun, 2017, arXiv 1707.06168 (refits); E. Frantar, D. Alistarh, 2022,
    arXiv 2208.11580 (which channels go); E. Kurtic et al., 2023, arXiv 2302.04089 (widths).

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> with torch.no_grad():  # every second channel repeats the one before it
    ...     _ = net[0].weight[1::2].copy_(net[0].weight[::2])
    ...     _ = net[0].bias[1::2].copy_(net[0].bias[::2])
    >>> found = compress(net, [torch.randn(64, 4)], 0.5, steps=0)
    >>> net[0].out_features, found.macs_fraction, found.agreement > 0.99
    (8, 0.5, True)
    """
    if isinstance(batches, Tensor):
        raise ValueError("batches is a tensor: pass a list of batches, [x], or a loader")
    compression = Compression(
        module, batches, layers=layers, round_to=round_to, least=least, mirror=mirror, seed=seed,
        progress=progress,
    )  # fmt: skip
    track_architecture(module)
    found = compression.cut(mac_target, steps=steps)
    module.eval()
    return found
