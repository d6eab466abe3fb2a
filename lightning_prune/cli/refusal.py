"""Which errors are a matter of the command line, and what is said of them."""

import sys
import traceback
from collections.abc import Sequence
from types import CodeType
from typing import NamedTuple

from lightning_prune.cli.composition import composition_message
from lightning_prune.errors import ConfigError

# Classes by name: to import them takes seconds, and where they were raised they are imported.
_REFUSALS = (("lightning_prune.data.checks", "DataError"),)
_FAILURES = (("lightning_prune.runs.non_finite_weights", "NonFiniteWeightsError"),)
_HINT = "(HYDRA_FULL_ERROR=1 shows where this was found)"


_LONGEST = 1000  # characters of a line; the value that was given may be a book


class Refusal(NamedTuple):
    """What is said of an error, and the exit code.

    Attributes:
        code: 2 where the command line or the data are wrong, 1 where a training failed.
        text: The message.
    """

    code: int
    text: str


def refusal(error: Exception, arguments: Sequence[str], task: CodeType) -> Refusal | None:
    """Return what to say of an error; None: it is a fault of the program, with a traceback.

    Whatever is raised before the task begins comes from composing the configuration, from files of
    the user, or from the folder of the run.

    Args:
        error: What was raised.
        arguments: The command line.
        task: The code of the function that Hydra calls with the configuration.
    """
    found = _refusal(error, arguments, task)
    return None if found is None else found._replace(text=shortened(found.text))


def shortened(text: str) -> str:
    """Return a text whose long lines are cut in the middle.

    >>> len(shortened("x" * 5000))
    1005
    """
    half = _LONGEST // 2
    lines = (x if len(x) <= _LONGEST else f"{x[:half]} ... {x[-half:]}" for x in text.split("\n"))
    return "\n".join(lines)


def _refusal(error: Exception, arguments: Sequence[str], task: CodeType) -> Refusal | None:
    if isinstance(error, ConfigError) or _is_one(error, _REFUSALS):
        return Refusal(2, f"{error}\n{_HINT}")
    if _is_one(error, _FAILURES):
        return Refusal(1, str(error))
    frames = traceback.walk_tb(error.__traceback__)
    if any(frame.f_code is task for frame, _ in frames):
        return None
    if isinstance(error, OSError) and error.filename is not None:
        return Refusal(2, f"{error.filename}: {error.strerror}; choose another folder\n{_HINT}")
    if isinstance(error, RecursionError):
        return Refusal(2, f"the configuration refers to itself, or is nested too deep\n{_HINT}")
    return Refusal(2, f"{composition_message(error, arguments)}\n{_HINT}")


def _is_one(error: Exception, classes: Sequence[tuple[str, str]]) -> bool:
    found = (getattr(sys.modules.get(module), name, ()) for module, name in classes)
    return any(isinstance(error, kind) for kind in found)
