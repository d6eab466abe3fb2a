import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from lightning_prune.report.norm_figure import norm_figure
from lightning_prune.report.selection_figure import KEPT


def drawn(figure) -> tuple[int, int]:
    """Return how many bins are drawn as low and as not low."""
    counts = {True: 0, False: 0}
    for patch in figure.axes[0].patches:
        values, _, baseline = patch.get_data()
        low = patch.get_facecolor() == to_rgba(KEPT)
        counts[low] += int((np.asarray(values) != baseline).sum())
    return counts[True], counts[False]


def test_low_channels_are_red():
    norms = torch.tensor([[1.0, 0.9, 0.8], [1.0, 0.02, 0.001]])
    assert drawn(norm_figure(norms[:1], [0], 0.1, "a")) == (0, 3)
    figure = norm_figure(norms, [0, 5], 0.1, "a")
    assert drawn(figure) == (2, 4)
    left, upper, lower = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["1", "6"]
    assert lower.lines[0].get_ydata().tolist() == pytest.approx([0, 200 / 3])
    bound = next(line for line in upper.lines if line.get_label() == "low below")
    assert bound.get_ydata().tolist() == pytest.approx([0.1, 0.1])


def test_of_many_epochs_the_first_and_the_last_are_shown():
    figure = norm_figure(torch.rand(60, 30), range(60), 0.1, "a")
    shown = [int(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert (shown[0], shown[-1], len(shown)) == (1, 60, 12)
    assert len(figure.axes[2].lines[0].get_xdata()) == 60


@pytest.mark.parametrize(
    "norms", [torch.zeros(2, 3), torch.ones(2, 1), torch.tensor([[0.0, 1.0], [1e-30, 1.0]])]
)
def test_extreme_norms_can_be_drawn(norms: torch.Tensor):
    figure = norm_figure(norms, [0, 1], 0.1, "a")
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).shape == (450, 1000, 4)
