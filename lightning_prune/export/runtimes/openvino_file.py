"""Files that OpenVINO runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.export.runtimes.runtime import Port, fitting
from lightning_prune.export.session import first_line, thread_count

MISSING = "OpenVINO files need openvino: pip install 'lightning-prune[openvino]'"


class OpenVinoFile:
    """See ``Runtime``.

    Args:
        model: The ``.xml`` beside its ``.bin``, or a model in memory.
        threads: How many compute; None: ``OMP_NUM_THREADS``, else what OpenVINO chooses.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
        ValueError: it cannot run the model.
    """

    def __init__(self, model: Any, threads: int | None = None):
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(MISSING) from error
        core = openvino.Core()
        # Half precision where the processor has it would be another file than the one judged.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        count = thread_count(threads)
        if count:
            settings["INFERENCE_NUM_THREADS"] = count
        try:
            read = core.read_model(model) if isinstance(model, str | Path) else model
            self._compiled = core.compile_model(read, "CPU", settings)
        except Exception as error:  # its errors have no class of their own
            raise ValueError(f"OpenVINO cannot load the model: {first_line(error)}") from error
        self.inputs = tuple(_port(one, i) for i, one in enumerate(self._compiled.inputs))
        self.outputs = tuple(_port(one, i) for i, one in enumerate(self._compiled.outputs))
        self.facts: Mapping[str, str] = _facts(read)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs."""
        feed = list(fitting(self.inputs, arrays).values())
        try:
            found = self._compiled(feed)
        except Exception as error:
            shapes = [array.shape for array in arrays]
            raise ValueError(
                f"OpenVINO cannot run the model on {shapes}: {first_line(error)}"
            ) from error
        return [np.array(found[i]) for i in range(len(self.outputs))]


def _port(one: Any, place: int) -> Port:
    shape = tuple(
        int(size.get_length()) if size.is_static else None for size in one.get_partial_shape()
    )
    name = one.get_any_name() if one.get_names() else f"port{place}"
    return Port(name, shape, np.dtype(one.get_element_type().to_dtype()).name)


def _facts(model: Any) -> dict[str, str]:
    """Return what stands beside the network; nothing where nothing does."""
    if not model.has_rt_info(["model_info"]):
        return {}
    found = model.get_rt_info(["model_info"])
    values = found.value if hasattr(found, "value") else found
    return {str(key): str(getattr(value, "value", value)) for key, value in values.items()}
