"""What a machine needs for a network at any widths, as it was measured there."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from lightning_prune.functional.widths.kernel_times import KernelTimes, Values, monotone
from lightning_prune.graph.latency_model import LatencyModel
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.job import BLOCK

VERSION = 1


@dataclass(frozen=True)
class LatencyTable:
    """Times of a network's kernels, and what whole networks take beside them.

    Attributes:
        runtime: Name and version of what computed.
        machine: Its processor.
        threads: Threads of the runtime.
        layers: Layer name -> place of its kernel.
        kernels: Times of each.
        factors: Constant, scale of the kernels, milliseconds for a value and for a further MAC.
        dense: Milliseconds of the dense network, as measured.
        errors: For each whole network that was measured how far the model is off, as a fraction,
            where that network is left out of the fit.
    """

    runtime: str
    machine: str
    threads: int
    layers: Mapping[str, int]
    kernels: Sequence[KernelTimes]
    factors: tuple[float, float, float, float]
    dense: float
    errors: tuple[float, ...]

    def model(self, macs: MacModel) -> LatencyModel:
        """Return milliseconds as a function of widths.

        Raises:
            ValueError: the table is of another network.
        """
        kernels = {name: self.kernels[place] for name, place in self.layers.items()}
        unknown = [name for name in kernels if name not in macs.layers]
        for name, times in kernels.items():
            for end, grid in ((macs.outputs, times.outputs), (macs.inputs, times.inputs)):
                if name in end and end[name].size != grid[-1]:
                    unknown.append(name)
        if unknown:
            raise ValueError(
                f"the latency table is of another network: layer {unknown[0]!r} is not there or of "
                "another width; measure one of this network (python -m lightning_prune latency)"
            )
        constant, scale, per_value, per_mac = self.factors
        return LatencyModel(macs, kernels, constant, scale, per_value, per_mac)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the table, in 16 digits."""
        text = json.dumps(self.content(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def in_words(self) -> str:
        """Return where it was measured and how far it is off."""
        off = 100 * np.array(self.errors)
        return (
            f"{self.runtime}, {self.threads} thread{'s'[: self.threads != 1]} of {self.machine}; "
            f"dense {self.dense:.2f} ms; networks left out of the fit are off by "
            f"{np.median(off):.1f} % (median), {off.max():.1f} % (largest of {len(off)})"
        )

    def content(self) -> dict[str, Any]:
        """Return the table as plain data."""
        return {
            "version": VERSION,
            "runtime": self.runtime,
            "machine": self.machine,
            "threads": self.threads,
            "layers": dict(self.layers),
            "kernels": [
                {
                    "outputs": list(one.outputs),
                    "inputs": list(one.inputs),
                    "times": np.round(one.times, 6).tolist(),
                    "block": one.block,
                }
                for one in self.kernels
            ],
            "factors": list(self.factors),
            "dense": self.dense,
            "errors": list(self.errors),
        }

    @classmethod
    def of_content(cls, content: Any, source: str) -> "LatencyTable":
        """Return the table that plain data hold.

        Args:
            content: What ``content`` returned, as read from a file.
            source: Where it was read, for the message.

        Raises:
            ValueError: it is no latency table, or of another version.
        """
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}")
            kernels = [
                KernelTimes(
                    tuple(map(int, one["outputs"])),
                    tuple(map(int, one["inputs"])),
                    np.array(one["times"], dtype=np.float64),
                    int(one["block"]),
                )
                for one in content["kernels"]
            ]
            constant, scale, per_value, per_mac = map(float, content["factors"])
            layers = {str(name): int(place) for name, place in content["layers"].items()}
            sound = all(
                one.times.shape == (len(one.outputs), len(one.inputs))
                and bool(np.isfinite(one.times).all())
                for one in kernels
            )
            if not sound or not all(0 <= place < len(kernels) for place in layers.values()):
                raise ValueError("sizes that do not fit")
            return cls(
                str(content["runtime"]), str(content["machine"]), int(content["threads"]), layers,
                kernels, (constant, scale, per_value, per_mac), float(content["dense"]),
                tuple(map(float, content["errors"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{source} is no latency table of version {VERSION} ({error}): write one by "
                "python -m lightning_prune latency CHECKPOINT --output FILE"
            ) from error


def table_of(
    description: Mapping[str, Any], times: Mapping[str, Any], macs: MacModel
) -> LatencyTable:
    """Return the table that measured times give.

    Args:
        description: Of the ``LatencyJob`` that was measured.
        times: What ``timer.measure`` returned.
        macs: MACs of the dense network as a function of widths.

    Raises:
        ValueError: times of another job.
    """
    if len(times["whole"]) != len(description["widths"]):
        raise ValueError(
            f"{len(times['whole'])} whole networks were timed and {len(description['widths'])} "
            "belong to this job: measure the files of its own folder"
        )
    kernels = []
    for (outputs, inputs), files in zip(description["grids"], description["files"], strict=True):
        grid = [[times["kernels"][place][str(width)] for place in files] for width in outputs]
        measured = np.array(grid, dtype=np.float64)
        kernels.append(KernelTimes(tuple(outputs), tuple(inputs), monotone(measured), BLOCK))
    layers = dict(description["layers"])
    plain = LatencyModel(macs, {name: kernels[place] for name, place in layers.items()})
    whole = np.array(times["whole"], dtype=np.float64)
    parts = np.concatenate([_parts(plain, widths) for widths in description["widths"]])
    errors = []
    for number in range(len(whole)):
        others = np.arange(len(whole)) != number
        guess = parts[number] @ _fitted(parts[others], whole[others])
        errors.append(abs(float(guess) / whole[number] - 1))
    constant, scale, per_value, per_mac = map(float, _fitted(parts, whole))
    return LatencyTable(
        str(times["runtime"]), str(times["machine"]), int(times["threads"]), layers, kernels,
        (constant, scale, per_value, per_mac), float(whole[0]), tuple(errors),
    )  # fmt: skip


def _parts(model: LatencyModel, widths: Mapping[str, int]) -> Values:
    names = list(widths)
    return model.parts_of(names)(np.array([[float(widths[name]) for name in names]]))


def _fitted(parts: Values, whole: Values) -> Values:
    """Return the factors, none negative, of the least relative squared errors."""
    sizes = np.abs(parts).max(0)
    sizes[sizes == 0] = 1.0
    found: Values = nnls(parts / sizes / whole[:, None], np.ones(len(whole)))[0] / sizes
    return found
