"""The formats that a network can be exported to: a new one joins by one entry in ``FORMATS``."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class Writer(Protocol):
    """Write a checked file of a network, as ``write_checked`` does.

    A writer takes all of these, and refuses with a ``ValueError`` what its format cannot hold.
    """

    def __call__(
        self,
        model: "nn.Module",
        path: str | Path,
        example_input: Any,
        input_names: tuple[str, ...] | None = None,
        batch: int | None = None,
        half: bool = False,
        opset: int | None = None,
        metadata: Mapping[str, str] | None = None,
        tolerance: float | None = None,
        size_step: int | None = None,
    ) -> float:
        """Return by how much file and network differ; see ``export_onnx`` for the arguments."""


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file. Words only, so that ``--help`` imports neither torch nor a runtime.

    Attributes:
        name: What it is called.
        suffix: Of its files.
        runtime: What runs the file when it is compared with the network.
        writer: ``module:function`` of its `Writer`.
        needs: Packages that writing it imports.
        extra: The extra of this package that installs them.
    """

    name: str
    suffix: str
    runtime: str
    writer: str
    needs: tuple[str, ...] = ()
    extra: str | None = None

    def load_writer(self) -> Writer:
        """Import what writes the files."""
        module, _, function = self.writer.partition(":")
        writer: Writer = getattr(importlib.import_module(module), function)
        return writer

    def check_installed(self) -> None:
        """Refuse where a package is missing.

        Raises:
            ModuleNotFoundError: one is; the message holds the command that installs it.
        """
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            packages = f"'lightning-prune[{self.extra}]'" if self.extra else " ".join(missing)
            raise ModuleNotFoundError(
                f"{self.name} export needs {', '.join(missing)}: pip install {packages}"
            )


FORMATS = {
    "onnx": ExportFormat(
        "ONNX",
        ".onnx",
        "ONNX Runtime",
        "lightning_prune.export.export_onnx:export_onnx",
        ("onnx", "onnxruntime", "onnxscript"),
        "onnx",
    ),
    "ultralytics": ExportFormat(
        "Ultralytics",
        ".pt",
        "ultralytics",
        "lightning_prune.detection.ultralytics.write_network:export_ultralytics",
        ("ultralytics",),
        "ultralytics",
    ),
}
"""Name on the command line -> the format."""
