"""Files that ONNX Runtime runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.export.runtimes.runtime import Port, fitting
from lightning_prune.export.session import open_session, run_session

_KINDS = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}


class OnnxFile:
    """See ``Runtime``.

    Args:
        model: The file, or its content.
        threads: How many compute; None: ``OMP_NUM_THREADS``, else as many as there are cores.
        device: Cpu, or cuda or cuda:N.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
        ValueError: it cannot run the model.
    """

    def __init__(self, model: Path | bytes, threads: int | None = None, device: str = "cpu"):
        self._session = open_session(model, device, threads)
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))
        self.facts: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs."""
        return run_session(self._session, fitting(self.inputs, arrays))


def _port(node: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    kind = _KINDS.get(node.type) or node.type.removeprefix("tensor(").removesuffix(")")
    return Port(node.name, shape, kind)
