"""Parameters of a neural-response network as an optimizer takes them."""

from typing import Any

from torch import Tensor, nn


def parameter_groups(
    network: nn.Module, lr: float, core_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups for core and readouts, decayed and not.

    Args:
        network: The ``NeuralResponseNetwork``.
        lr: Learning rate of the readouts.
        core_lr: That of the core.
        weight_decay: Of weights only: not of vectors, nor of the place and size of the readouts'
            masks.
    """
    groups = []
    for of_core, rate in ((True, core_lr), (False, lr)):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and name.startswith("readouts.") != of_core
                and _decays(name, parameter) == decays
            ]
            groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay * decays})
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: Tensor) -> bool:
    place_of_mask = name.startswith("readouts.") and name.endswith((".mean", ".std", ".theta"))
    # By name and not by size, which a cut changes: a resumed optimizer has the same groups.
    is_vector = parameter.ndim <= 1 or name.endswith(".h0")
    return not (place_of_mask or is_vector)
