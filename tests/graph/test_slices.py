"""Slices and expansions over space and time leave channels alone; those over channels do not."""

import torch
from torch import Tensor, nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.testing import check_prunable
from tests.graph.cut import partition


class Cropped(nn.Module):
    """A strided and cropped shortcut, a last frame, and a vector expanded over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 8, 3)
        self.embed = nn.Linear(3, 4)
        self.join = nn.Conv2d(12, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.second(x) + x[:, :, 2:, 1:-1, 1:-1]
        last = torch.relu(x[:, :, -1:, ::2, ::2]).squeeze(2)
        everywhere = self.embed(vector)[:, :, None, None].expand(-1, -1, *last.shape[2:])
        return self.head(torch.relu(self.join(torch.cat([last, everywhere], 1))))


CROPPED = (torch.zeros(1, 2, 6, 8, 8), torch.zeros(1, 3))


def test_space_and_time_can_be_sliced_between_pruned_layers():
    found = check_prunable(Cropped(), CROPPED)
    assert found.groups == 3
    assert found.difference < 1e-5
    groups = trace_groups(Cropped(), CROPPED)
    assert groups["first"].producers == ("first", "second")
    assert groups["embed"].layers("consumer") == ("join",)
    assert groups["embed"].members[-1].index.tolist() == [8, 9, 10, 11]


class Halved(nn.Module):
    """Half of the channels each go their own way; then the same behind another order of axes."""

    def __init__(self, permuted: bool) -> None:
        super().__init__()
        self.permuted = permuted
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        half = x.permute(0, 2, 3, 1)[..., :4].permute(0, 3, 1, 2) if self.permuted else x[:, :4]
        return self.second(half)


def test_channels_that_nothing_reads_are_no_obstacle():
    for permuted in (False, True):
        groups = trace_groups(Halved(permuted), torch.zeros(1, 3, 5, 6))
        # The other half is read by nothing: it goes with no channel, and stays.
        assert partition(groups, "first") == {"first": [[0], [1], [2], [3]]}
        assert groups["first"].members[-1].index.tolist() == [0, 1, 2, 3]


def test_a_slice_of_a_fixed_size_cannot_be_cut():
    for permuted in (False, True):
        groups = build_groups(Halved(permuted), torch.zeros(1, 3, 5, 6))
        assert "first" in groups.refused
        assert not groups
