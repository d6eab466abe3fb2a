"""What a file is to those that run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: Its name in the file.
        shape: Its sizes; None: any.
        kind: Its numbers, as NumPy names them.
    """

    name: str
    shape: tuple[int | None, ...]
    kind: str = "float32"


class Runtime(Protocol):
    """A file that was opened.

    Attributes:
        inputs: In the order in which they are passed.
        outputs: In the order in which they come.
        facts: What is written in the file beside the network.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    facts: Mapping[str, str]

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs."""
        ...


def fitting(ports: Sequence[Port], arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs by name, in the kinds of numbers that the file takes.

    Raises:
        ValueError: there are more or fewer than the file takes.
    """
    if len(arrays) != len(ports):
        raise ValueError(f"the file takes {len(ports)} inputs, {len(arrays)} were passed")
    return {
        port.name: np.ascontiguousarray(array, dtype=port.kind)
        for port, array in zip(ports, arrays, strict=True)
    }
