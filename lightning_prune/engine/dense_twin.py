"""The dense network of a run, beside the pruned one while that trains."""

from typing import Any

import torch
from torch import nn

from lightning_prune.engine.outer_calls import Call
from lightning_prune.engine.output_agreement import floats_of
from lightning_prune.graph.forward_pass import eager
from lightning_prune.graph.names import modules_by_name


class DenseTwin:
    """A frozen network in eval mode that repeats the calls of the one that trains.

    Where a network gives something else in training than in eval mode (maps instead of boxes,
    outputs of auxiliary heads), its containers are in training mode and its layers (norms, dropout)
    stay in eval mode.

    Args:
        network: The dense network; it is frozen.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)
        self._parts = modules_by_name(network)
        self._as_trained = False

    def __call__(self, call: Call) -> Any:
        """Return what it gives for the inputs of a call, of the same form as that call's outputs.

        Raises:
            ValueError: it is of another form.
        """
        wanted = _form(call.outputs)
        outputs = self._outputs(call)
        if _form(outputs) != wanted and not self._as_trained:
            self._as_trained = True
            for part in self.network.modules():
                part.training = _is_container(part)
            outputs = self._outputs(call)
        if _form(outputs) != wanted:
            raise ValueError(
                f"{call.layer or type(self.network).__name__} gives {_in_words(wanted)} in "
                f"training, and the dense network beside it {_in_words(_form(outputs))}: nothing "
                "can be compared. Let training_step call a module that gives the same in both modes"
            )
        return outputs

    def _outputs(self, call: Call) -> Any:
        with torch.no_grad(), eager():
            return self._parts[call.layer](*call.inputs, **call.named)


def _form(outputs: Any) -> list[int]:
    return [value.ndim for value in floats_of(outputs)]


def _in_words(form: list[int]) -> str:
    if not form:
        return "no tensors of real numbers"
    return f"{len(form)} tensors of {', '.join(map(str, form))} dimensions"


def _is_container(part: nn.Module) -> bool:
    of_torch = type(part).__module__.startswith("torch.nn.modules")
    return next(part.children(), None) is not None and (
        not of_torch or isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    )
