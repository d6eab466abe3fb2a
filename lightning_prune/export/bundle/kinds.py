"""The kinds of files that a bundle can hold: a new one joins by one entry in ``KINDS``."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.errors import ConfigError
from lightning_prune.export.formats import FORMATS


@dataclass(frozen=True)
class Kind:
    """A kind of file. Words only, so that ``--help`` imports neither torch nor a runtime.

    Attributes:
        name: On the command line.
        title: What runs it.
        suffix: What is behind the stem of the file's name.
        needs: Packages that writing and judging it import.
        runs: Those of them that running it imports.
        extra: The extra of this package that installs them.
        int8: Whether its layers multiply 8-bit integers: it needs images to be calibrated on.
    """

    name: str
    title: str
    suffix: str
    needs: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    extra: str | None = None
    int8: bool = False

    @property
    def missing(self) -> str | None:
        """Return what is not installed, with the command that installs it; None: nothing."""
        return self._lacking(self.needs)

    @property
    def missing_runtime(self) -> str | None:
        """Return the same of what running the file needs."""
        return self._lacking(self.runs)

    def _lacking(self, names: tuple[str, ...]) -> str | None:
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if not missing:
            return None
        return (
            f"{self.name} needs {', '.join(missing)}: pip install 'lightning-prune[{self.extra}]'"
        )


_ONNX = ("onnx", "onnxruntime", "onnxscript")
_OPENVINO = (*_ONNX, "openvino")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("onnx", "ONNX Runtime", ".onnx", _ONNX, ("onnxruntime",), "onnx"),
        Kind("onnx-int8", "ONNX Runtime", "-int8.onnx", _ONNX, ("onnxruntime",), "onnx", True),
        Kind("openvino", "OpenVINO", ".xml", _OPENVINO, ("openvino",), "onnx,openvino"),
        Kind(
            "openvino-int8", "OpenVINO", "-int8.xml", (*_OPENVINO, "nncf"), ("openvino",),
            "onnx,openvino", True,
        ),
        Kind("safetensors", "PyTorch", ".safetensors"),
    )
}  # fmt: skip


def read_kinds(text: str) -> list[Kind]:
    """Return the kinds in a list with commas, each once, in its order.

    Raises:
        ConfigError: there is no such kind.
        ModuleNotFoundError: what one needs is not installed.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        alone = [name for name in FORMATS if name not in KINDS]
        why = "is a file of its own" if unknown[0] in alone else "is no format"
        raise ConfigError(
            f"--format {text}: {unknown[0]!r} {why}: pass {', '.join(alone)} alone, or some of "
            f"{', '.join(KINDS)}, with commas between them"
        )
    kinds = [KINDS[name] for name in names]
    check_installed(kinds)
    return kinds


def check_installed(kinds: Sequence[Kind]) -> None:
    """Refuse before work starts where packages are missing.

    Raises:
        ModuleNotFoundError: one sentence for each kind.
    """
    missing = [kind.missing for kind in kinds if kind.missing]
    if missing:
        raise ModuleNotFoundError("\n".join(map(str, missing)))
