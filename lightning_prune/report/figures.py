"""Figures as files."""

import io
import re
from pathlib import Path

from matplotlib.figure import Figure

from lightning_prune.files import write_bytes
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.selection_figure import selection_figure


def file_name(group: str) -> str:
    """Return a group's name as the name of an image.

    >>> file_name("backbone.p1.conv"), file_name("a/b c")
    ('backbone.p1.conv.png', 'a_b_c.png')
    """
    return re.sub(r"[^\w.-]", "_", group) + ".png"


def write_figure(path: Path, figure: Figure, dpi: int = 100) -> None:
    """Write a figure as PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    write_bytes(path, image.getvalue())


def write_selection(folder: Path, clustering: ChannelClustering, decision: GroupDecision) -> Path:
    """Draw why a group keeps the channels it keeps; return the file's path."""
    path = folder / file_name(decision.group)
    figure = selection_figure(clustering, decision.keep, len(decision.keep), decision.group)
    write_figure(path, figure)
    return path
