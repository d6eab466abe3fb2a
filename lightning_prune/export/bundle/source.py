"""The network that a bundle's files are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.export.onnx_model import onnx_model


@dataclass
class Source:
    """A network, and what its files need to know of it.

    Attributes:
        model: The network, on the CPU, in float32.
        example: A tensor (B, ...), or a tuple or dict of arguments.
        stem: Of the files' names.
        rebuild: Builds the network as it was before any cut, to load weights into.
        options: Of ``onnx_model``: ``input_names``, ``batch``, ``size_step``, ``metadata``,
            ``opset``.
        calibration: Inputs as the network will see them, one array for each of its inputs; files
            in 8 bits need them.
        names: Of the classes.
    """

    model: nn.Module
    example: Any
    stem: str
    rebuild: Callable[[], nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    calibration: Sequence[Sequence[np.ndarray]] = ()
    names: Sequence[str] = ()

    @cached_property
    def onnx(self) -> bytes:
        """Return the network as an ONNX model in 32 bits."""
        return onnx_model(self.model, self.example, **self.options)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs."""
        count = sum(isinstance(leaf, Tensor) for leaf in tree_leaves(self.example))
        given = self.options.get("input_names")
        return given or tuple(f"input{place}" for place in range(count))

    @property
    def feeds(self) -> list[dict[str, np.ndarray]]:
        """Return the inputs for calibration, by name.

        Raises:
            ValueError: there are none.
        """
        if not self.calibration:
            raise ValueError(
                "files in 8 bits need images to find the ranges of activations: give --calibrate "
                "RUN or FOLDER"
            )
        return [dict(zip(self.input_names, one, strict=True)) for one in self.calibration]
