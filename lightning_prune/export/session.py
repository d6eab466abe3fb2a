"""ONNX Runtime, whose errors become sentences."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def open_session(model: bytes | Path, device: str = "cpu", threads: int | None = None) -> Any:
    """Open an ONNX model on the CPU, or on a GPU where this installation can.

    Args:
        model: The file, or its content.
        device: Cpu, or cuda or cuda:N.
        threads: How many compute; None: ``OMP_NUM_THREADS``, else as many as there are cores.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
        ValueError: ONNX Runtime cannot read or run the model, or not on the device.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ONNX files need onnxruntime: pip install 'lightning-prune[onnx]'"
        ) from error

    kind, _, index = device.partition(":")
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ValueError(
                f"device={device}: this ONNX Runtime has no CUDA: pip install onnxruntime-gpu, or "
                "leave the device out"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0)}))
    elif kind != "cpu":
        raise ValueError(f"device={device}: ONNX Runtime is used on cpu or cuda")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is in the error
    options.intra_op_num_threads = thread_count(threads)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # its classes have no common one of their own
        raise ValueError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error


def thread_count(threads: int | None) -> int:
    """Return how many threads compute: as given, else ``OMP_NUM_THREADS``; 0: not said."""
    given = os.environ.get("OMP_NUM_THREADS", "") if threads is None else str(threads)
    return int(given) if given.isdecimal() else 0


def run_session(session: Any, feed: Mapping[str, np.ndarray]) -> list[Any]:
    """Return all outputs of a model.

    Raises:
        ValueError: ONNX Runtime cannot run it on these inputs.
    """
    try:
        found: list[Any] = session.run(None, dict(feed))
    except Exception as error:
        shapes = {name: value.shape for name, value in feed.items()}
        raise ValueError(
            f"ONNX Runtime cannot run the model on {shapes}: {first_line(error)}"
        ) from error
    return found


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
