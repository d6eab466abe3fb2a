import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.selection import choose_channels
from lightning_prune.report.selection_figure import KEPT, selection_figure


def clustering(channels, pairs=6, embedding="pca", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return cluster_channels(
        2 * torch.rand(channels, pairs, generator=generator), embedding=embedding
    )


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


@pytest.mark.parametrize(("channels", "pairs"), [(4, 1), (16, 3), (64, 45), (256, 190)])
@pytest.mark.parametrize("embedding", ["pca", "none"])
def test_every_channel_is_drawn_and_the_kept_ones_stand_out(channels, pairs, embedding):
    found = clustering(channels, pairs, embedding)
    width = max(1, channels // 3)
    keep = choose_channels(found, torch.arange(channels).float(), width).keep
    figure = selection_figure(found, keep, width, "backbone.conv")
    points, curve, matrix = figure.axes[:3]
    gone, kept = points.collections[1:3]
    coordinates = found.embedding.numpy()
    flat = np.column_stack([coordinates, np.zeros(channels)])[:, :2]
    np.testing.assert_array_equal(kept.get_offsets(), flat[keep.numpy()])
    assert len(gone.get_offsets()) == channels - len(keep)
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), found.mss)
    labels = found.at(width).labels.numpy()
    drawn = np.asarray(matrix.images[0].get_array())
    order = [
        next(i for i in range(channels) if np.array_equal(found.matrix[i], row)) for row in drawn
    ]
    assert sorted(order) == list(range(channels))
    assert (np.diff(labels[order]) != 0).sum() == width - 1  # the channels of a cluster together
    marks = [order[int(place)] for _, place in matrix.collections[0].get_offsets()]
    assert sorted(marks) == keep.tolist()
    assert f"{len(keep)} of {channels} channels stay" in figure.get_suptitle()
    assert pixels(figure).shape == (400, 1200, 4)


def test_lines_join_every_channel_to_the_kept_one_of_its_cluster():
    found = clustering(12)
    keep = choose_channels(found, torch.ones(12), 4).keep
    lines = selection_figure(found, keep, 4, "a").axes[0].collections[0].get_segments()
    labels, points = found.at(4).labels, found.embedding.numpy()
    owner = {int(labels[channel]): int(channel) for channel in keep}
    for channel, (start, end) in enumerate(lines):
        np.testing.assert_allclose(start, points[channel])
        np.testing.assert_allclose(end, points[owner[int(labels[channel])]])


def test_knee_and_chosen_width_are_marked():
    found = clustering(40)
    assert found.knee is not None
    curve = selection_figure(found, torch.arange(7), 7, "a").axes[1]
    assert [text.get_text() for text in curve.get_legend().get_texts()] == [
        "chosen 7", f"knee {found.knee}",
    ]  # fmt: skip
    straight = clustering(4)
    assert straight.knee is None
    (text,) = selection_figure(straight, [0], 1, "a").axes[1].get_legend().get_texts()
    assert text.get_text() == "chosen 1"


def test_a_baseline_may_keep_two_of_a_cluster_and_none_of_another():
    found = clustering(10)
    labels = found.at(3).labels
    keep = torch.nonzero(labels == labels[0]).flatten()[:2]
    figure = selection_figure(found, keep, 3, "a")
    assert len(figure.axes[0].collections[2].get_offsets()) == len(keep)
    pixels(figure)


def test_nothing_is_left_in_pyplots_global_state():
    selection_figure(clustering(6), [0, 1], 2, "a")
    assert not _pylab_helpers.Gcf.figs


def test_wrong_arguments():
    found = clustering(6)
    for keep in ([], [6], [-1]):
        with pytest.raises(ValueError, match=r"pass channels in 0\.\.5"):
            selection_figure(found, keep, 2, "a")
    with pytest.raises(ValueError, match=r"k=7 is outside 1\.\.6"):
        selection_figure(found, [0], 7, "a")


def test_the_kept_colour_is_on_the_page():
    image = pixels(selection_figure(clustering(16), [1, 5, 9], 3, "a"))[..., :3]
    red = np.array([int(KEPT[i : i + 2], 16) for i in (1, 3, 5)])
    assert (image == red).all(-1).sum() > 100
