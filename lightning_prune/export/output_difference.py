"""Compares a converted network with the network it was made from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_prune.export.batches import with_batch
from lightning_prune.surgery.compare import eval_outputs, noise_like

_FLOOR = 1e-3
# ONNX Runtime computes exponentials to about 1e-8 absolute: of a probability of 1e-7, such as
# noise gets from a detector, that is 2 %.


def output_difference(
    run: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    model: nn.Module,
    example_input: Any,
    batch_sizes: Sequence[int] = (1, 3),
    seed: int = 0,
    half: bool = False,
    name: str = "file",
) -> float:
    """Return how far a converted network and the network are apart on seeded noise.

    The largest |difference| as a fraction of the largest value of the same channel (dimension 1)
    for outputs of three and more dimensions, of the whole output otherwise: next to a box of 640
    pixels a wrong score of 0.5 would not be seen. A channel below 0.001 counts as 0.001.

    Args:
        run: Gives the outputs of the converted network for its inputs.
        model: The network, on the CPU, in float32; it is left as it was.
        example_input: A tensor (B, ...), or a tuple or dict of arguments.
        batch_sizes: Numbers of samples to try.
        seed: Of the first batch's noise, in [0, 1); later ones count up.
        half: The noise is of numbers that 16 bits can hold.
        name: What the converted network is called in messages.

    Returns:
        The fraction; NaN or infinity where the outputs cannot be compared.

    Raises:
        ValueError: it has another number of outputs than the network.
    """
    worst = 0.0
    for offset, size in enumerate(batch_sizes):
        batch = noise_like(with_batch(example_input, size), seed + offset)
        if half:
            # Both sides see the numbers that half precision can hold.
            batch = tree_map(_rounded_to_half, batch)
        found = run([leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)])
        expected = eval_outputs(model, batch)
        if len(found) != len(expected):
            raise ValueError(f"the {name} has {len(found)} outputs, the network {len(expected)}")
        difference = largest_difference([expected], [found])
        if not math.isfinite(difference):  # max() would lose NaN
            return difference
        worst = max(worst, difference)
    return worst


def largest_difference(
    expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]
) -> float:
    """Return the largest |difference| between outputs, as ``output_difference`` measures it.

    Args:
        expected: For each batch the outputs of the network.
        found: For each batch as many outputs of a file.
    """
    worst = 0.0
    for wanted, given in zip(expected, found, strict=True):
        for pair in zip(wanted, given, strict=True):
            difference = _difference(*pair)
            if not math.isfinite(difference):
                return difference
            worst = max(worst, difference)
    return worst


def _rounded_to_half(value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.half().float() if floating else value


def _difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest |difference| as a fraction of the channel's largest value."""
    if expected.shape != found.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    expected, found = expected.double(), found.double()
    same = (expected == found) | (expected.isnan() & found.isnan())
    sizes = torch.where(expected.isfinite(), expected, 0).abs()
    whole = float(sizes.max())
    if sizes.ndim >= 3:
        sizes = sizes.transpose(0, 1).flatten(1).amax(1).view(1, -1, *[1] * (sizes.ndim - 2))
    scale = sizes.clamp(min=min(_FLOOR, whole) or 1.0) if sizes.ndim >= 3 else whole or 1.0
    difference = float((torch.where(same, 0, expected - found).abs() / scale).max())
    return difference if math.isfinite(difference) else math.nan
