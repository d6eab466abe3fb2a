"""Small recordings for the tests of the neural data."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightning_prune.neural.data.session import NeuralSession

FORMATS = ["npz", "compressed.npz", "h5"]


def arrays(
    seed: int = 0,
    cells: int = 3,
    trials: tuple[int, ...] = (9, 4, 12, 10, 9, 11),
    side: tuple[int, int] = (3, 2),
    **changed: Any,
) -> dict[str, Any]:
    """What a file of a session holds; a changed value of None leaves the array out."""
    rng = np.random.default_rng(seed)
    frames = sum(trials)
    rate = rng.uniform(0.2, 1.5, (frames, cells)).astype(np.float32)
    content = {
        "stimulus": rng.integers(0, 256, (frames, *side), dtype=np.uint8),
        "spikes": rng.poisson(rate).astype(np.uint8),
        "behavior": rng.normal(size=(frames, 4)).astype(np.float32),
        "valid": rng.random((frames, cells)) < 0.9,
        "trial": np.repeat(np.arange(len(trials)), trials),
        "frame_rate": np.float64(120.0),
        "labels_eye": rng.integers(0, 2, frames),
        "label_names_eye": np.array(["fixation", "saccade"]),
        "rate": rate,
        "repeat": np.full(frames, -1),
    }
    return {name: value for name, value in {**content, **changed}.items() if value is not None}


def session(seed: int = 0, name: str = "here", **options: Any) -> NeuralSession:
    """The same as a session in memory."""
    content = arrays(seed, **options)
    valid = content["valid"]
    return NeuralSession(
        name=name,
        stimulus=content["stimulus"],
        spikes=content["spikes"],
        behavior=content["behavior"],
        valid=valid if valid.ndim == 2 else valid[:, None].repeat(content["spikes"].shape[1], 1),
        trial=content["trial"],
        frame_rate=float(content["frame_rate"]),
        labels={"eye": content["labels_eye"]} if "labels_eye" in content else {},
        label_names={"eye": ["fixation", "saccade"]} if "labels_eye" in content else {},
        rate=content.get("rate"),
        repeat=content.get("repeat"),
    )


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write arrays in the format the ending says."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                text = value.dtype.kind == "U"
                file[name] = value.astype(h5py.string_dtype()) if text else value
    elif ".compressed" in path.name:
        np.savez_compressed(path, **content)
    else:
        np.savez(path, **content)
    return path
