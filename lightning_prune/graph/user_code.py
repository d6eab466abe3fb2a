"""Where in a user's code a traced operation stands."""

import sys
from pathlib import Path
from types import FrameType

import torch

_TORCH, _GRAPH = str(Path(torch.__file__).parent), str(Path(__file__).parent)


def place_in_code() -> str:
    """Return the file and line in a user's code that runs now; empty where only PyTorch's runs."""
    frame: FrameType | None = sys._getframe(1)
    inside = True  # the frames of the rules themselves come first
    while frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith(_GRAPH)
        if own and not inside:
            return ""
        if not own:
            inside = False
            if not file.startswith((_TORCH, "<")):
                return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
