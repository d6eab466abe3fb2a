"""Figures as files.

Matplotlib, which what draws them is built on, is imported when the first is drawn: a report
without figures is written where it is not installed.
"""

import importlib.util
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.files import write_bytes
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.report_data import ReportData, Usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def file_name(group: str) -> str:
    """Return a group's name as the name of an image.

    >>> file_name("backbone.p1.conv"), file_name("a/b c")
    ('backbone.p1.conv.png', 'a_b_c.png')
    """
    return re.sub(r"[^\w.-]", "_", group) + ".png"


def write_figure(path: Path, figure: "Figure", dpi: int = 100) -> None:
    """Write a figure as PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    write_bytes(path, image.getvalue())


def write_selection(folder: Path, clustering: ChannelClustering, decision: GroupDecision) -> Path:
    """Draw why a group keeps the channels it keeps; return the file's path."""
    from lightning_prune.report.selection_figure import selection_figure

    path = folder / file_name(decision.group)
    figure = selection_figure(clustering, decision.keep, len(decision.keep), decision.group)
    write_figure(path, figure)
    return path


def write_overview(folder: Path, content: ReportData) -> Path:
    """Draw the widths of all layers before and after; return the file's path."""
    from lightning_prune.report.model_figure import model_figure

    path = folder / "overview.png"
    write_figure(path, model_figure(content))
    return path


def write_usage(folder: Path, usage: Usage) -> Path:
    """Draw which channels were used; return the file's path."""
    from lightning_prune.report.usage_figure import usage_figure

    path = folder / "usage.png"
    write_figure(path, usage_figure(usage))
    return path
