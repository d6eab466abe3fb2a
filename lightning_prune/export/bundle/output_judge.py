"""Judges the files of any network by what they give for real inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.export.bundle.gate import Gate, Run
from lightning_prune.export.output_difference import largest_difference
from lightning_prune.surgery.compare import eval_outputs

TOLERANCE = 1e-3
OUTPUT_LOSS = 0.1
ACCURACY_LOSS = 0.01


class OutputJudge:
    """Compare outputs with those of the checkpoint; see ``Judge``.

    Of a classifier with labels the accuracy decides on files in 8 bits, else the relative error of
    the outputs: root of the mean squared difference, as a fraction of the outputs' own.

    Args:
        model: The checkpoint's network, on the CPU; it is left as it was.
        inputs: Batches as ``call`` takes them.
        labels: Of each batch (B,), integers; None: there are none.
        data: What they are, in words: "validation images".
        tolerance: Largest difference of a file in 32 bits, as a fraction of a channel's largest
            value; None: 0.001.
        accept_loss: What a file in 8 bits may lose; None: .01 of the accuracy, .1 relative error.

    Raises:
        ValueError: there is no input.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Any],
        labels: Sequence[Tensor] | None = None,
        data: str = "images",
        tolerance: float | None = None,
        accept_loss: float | None = None,
    ):
        if not inputs:
            raise ValueError("there is no image to judge a file by: give some")
        self.arrays = [input_arrays(one) for one in inputs]
        self.expected = [eval_outputs(model, one) for one in inputs]
        logits = len(self.expected[0]) == 1 and self.expected[0][0].ndim == 2
        self.labels = labels if logits else None
        self.data = data
        self.tolerance = TOLERANCE if tolerance is None else tolerance
        self.accept_loss = accept_loss

    @property
    def images(self) -> int:
        """Return how many images there are."""
        return sum(len(arrays[0]) for arrays in self.arrays)

    def answers(self, run: Run) -> list[list[Tensor]]:
        """Return what a file gives for each batch."""
        return [[torch.from_numpy(np.array(one)) for one in run(arrays)] for arrays in self.arrays]

    def exact(self, run: Run) -> Gate:
        """Judge by the largest difference."""
        answers = self.answers(run)
        values = {"outputs": largest_difference(self.expected, answers)}
        if self.labels is not None:
            values["accuracy"] = accuracy(answers, self.labels)
        limits = {"outputs": self.tolerance}
        return Gate("difference", values, {}, limits, self.images, self.data)

    def close(self, run: Run) -> Gate:
        """Judge by the accuracy where there are labels, else by the relative error."""
        found = self.answers(run)
        if self.labels is not None:
            allowed = ACCURACY_LOSS if self.accept_loss is None else self.accept_loss
            dense = {"accuracy": accuracy(self.expected, self.labels)}
            limits = {"accuracy": dense["accuracy"] - allowed}
            values = {"accuracy": accuracy(found, self.labels)}
            return Gate("metric", values, dense, limits, self.images, self.data)
        allowed = OUTPUT_LOSS if self.accept_loss is None else self.accept_loss
        values = {"relative error": relative_error(self.expected, found)}
        limits = {"relative error": allowed}
        return Gate("difference", values, {}, limits, self.images, self.data)


def input_arrays(inputs: Any) -> list[np.ndarray]:
    """Return the tensors of a batch of inputs as arrays, in their order."""
    return [leaf.cpu().numpy() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def accuracy(outputs: Sequence[Sequence[Tensor]], labels: Sequence[Tensor]) -> float:
    """Return how often the largest of the first output's values is at the label.

    >>> accuracy([[torch.tensor([[0.1, 0.9], [0.8, 0.2]])]], [torch.tensor([1, 1])])
    0.5
    """
    right = [one[0].argmax(1) == label for one, label in zip(outputs, labels, strict=True)]
    return float(torch.cat(right).float().mean())


def relative_error(
    expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]
) -> float:
    """Return the root of the mean squared difference, as a fraction of the expected values' own.

    The worst output counts.

    >>> relative_error([[torch.tensor([3.0, 4.0])]], [[torch.tensor([3.0, 3.5])]])
    0.1
    """
    errors = []
    for wanted, given in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        one = torch.cat([value.double().flatten() for value in wanted])
        other = torch.cat([value.double().flatten() for value in given])
        errors.append(float((one - other).norm() / one.norm().clamp(min=1e-12)))
    return next((one for one in errors if one != one), max(errors))
