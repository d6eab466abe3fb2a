"""The loss of outputs and features against those of the dense network, in a training step."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.engine.dense_twin import DenseTwin
from lightning_prune.engine.kept_features import feature_loss, recorded
from lightning_prune.engine.outer_calls import Call, main_call, outer_calls
from lightning_prune.engine.output_agreement import floats_of, relative_error
from lightning_prune.functional.softened import softened_divergence
from lightning_prune.graph.forward_pass import eager

Channels = tuple[Tensor, Tensor]
"""Channels of a layer of the pruned network, and which ones those are in the dense network."""


class SecondLoss:
    r"""How far a network that trains is from the dense one, in its own forward pass.

    .. math:: L = w_o L_\text{outputs} + w_f L_\text{features}

    Args:
        module: The network that trains.
        twin: The dense one.
        layer: Which of its modules a training step calls; "": the whole; None: not known yet.
        outputs: Weight of the outputs, at least 0.
        features: Weight of the features, at least 0.
        temperature: By which logits of a classifier are divided.

    Attributes:
        channels: Layer -> what is compared of its features.
    """

    def __init__(
        self,
        module: nn.Module,
        twin: DenseTwin,
        layer: str | None,
        outputs: float,
        features: float,
        temperature: float,
    ) -> None:
        self.channels: Mapping[str, Channels] = {}
        self._module, self._twin, self._layer = module, twin, layer
        self._outputs, self._features, self._temperature = outputs, features, temperature
        self._calls: list[Call] = []
        self._given: Mapping[str, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls of one training step, and the features of the last one."""
        with ExitStack() as stack:
            if self._features:
                stack.enter_context(eager())
                layers = {name: own for name, (own, _) in self.channels.items()}
                self._given = stack.enter_context(recorded(self._module, layers))
            self._calls = stack.enter_context(outer_calls(self._module, self._layer))
            yield

    def __call__(self, batch: Any) -> Tensor:
        """Return the loss of the training step that was recorded.

        Raises:
            ValueError: it did not come to the module that is compared, or what that gave cannot be
                compared with what the dense network gives.
        """
        calls, given = self._calls, self._given
        self._calls, self._given = [], {}
        if self._layer is None:
            self._layer = main_call(self._module, calls).layer
        calls = [call for call in calls if call.layer == self._layer]
        if not calls:
            raise ValueError(
                f"training_step of {type(self._module).__name__} did not call "
                f"{self._layer or 'the module'} this time, whose outputs are compared with those "
                "of the dense network: call it in every step"
            )
        losses = []
        dense = {name: index for name, (_, index) in self.channels.items()}
        with recorded(self._twin.network, dense if self._features else {}) as wanted:
            for call in calls:
                expected = self._twin(call)
                if self._outputs:
                    losses.append(self._of_outputs(call.outputs, expected, batch))
        total = self._outputs * torch.stack(losses).mean() if losses else 0.0
        if not self._features:
            return torch.as_tensor(total)
        own = {n: _some(given[n], self.channels[n][0]).float() for n in given}
        theirs = {name: value.float() for name, value in wanted.items()}
        both = {name: dense[name] for name in own if name in theirs}
        found = feature_loss(own, theirs, both, bounded=True)
        return total + self._features * found

    def _of_outputs(self, outputs: Any, dense: Any, batch: Any) -> Tensor:
        own = getattr(self._module, "distillation_loss", None)
        if callable(own):
            loss: Tensor = own(outputs, dense)
            return loss
        return plain_output_loss(outputs, dense, batch, self._temperature)


def plain_output_loss(outputs: Any, dense: Any, batch: Any, temperature: float) -> Tensor:
    """Return how far outputs are from those of the dense network, of modules that do not say.

    For class scores (B, K) or (B, K, ...), where the batch has integer targets (B,) or (B, ...),
    the divergence of the softened probabilities; else the relative error of the tensors that are
    no single numbers.

    Args:
        outputs: Of the pruned network.
        dense: Of the dense network.
        batch: Inputs and targets.
        temperature: By which class scores are divided.

    Raises:
        ValueError: the shapes differ.

    >>> scores, target = torch.tensor([[0.0, 2.0]]), torch.tensor([1])
    >>> plain_output_loss(scores, scores, (None, target), 4.0).item()
    0.0
    >>> plain_output_loss(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]), None, 4.0).item()
    2.0
    """
    given = [value for value in floats_of(outputs) if value.ndim]
    wanted = [value for value in floats_of(dense) if value.ndim]
    shapes = [tuple(value.shape) for value in given], [tuple(value.shape) for value in wanted]
    if shapes[0] != shapes[1] or not given:
        raise ValueError(
            f"the outputs are of shapes {shapes[0]}, those of the dense network of {shapes[1]}: "
            "define distillation_loss(self, outputs, dense_outputs) on the LightningModule, or let "
            "training_step call a module whose outputs are not pruned"
        )
    if len(given) == 1 and _are_logits(given[0], batch):
        return softened_divergence(given[0], wanted[0], temperature)
    return relative_error(given, wanted)


def _are_logits(outputs: Tensor, batch: Any) -> bool:
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        return False
    places = outputs.shape[:1] + outputs.shape[2:]
    tensors = (value for value in tree_leaves(batch) if isinstance(value, Tensor))
    return any(
        value.shape == places and not value.is_floating_point() and value.dtype != torch.bool
        for value in tensors
    )


def _some(features: Tensor, channels: Tensor) -> Tensor:
    return features if features.shape[-1] == len(channels) else features.index_select(-1, channels)
