"""A pass leaves a model as it was."""

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import untouched


class Grid(nn.Module):
    """Remembers positions, and the shapes that they were made for, as heads of detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = torch.empty(0)

    shapes: list[int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        shapes = list(x.shape)
        if self.shapes != shapes:
            self.positions = torch.arange(x.shape[-1], dtype=x.dtype)
            self.shapes = shapes
        return x + self.positions


def test_what_a_module_remembers_stays_together() -> None:
    grid = Grid()
    with untouched(grid):
        grid(torch.zeros(2, 5))
    assert torch.equal(grid(torch.zeros(2, 5)), torch.arange(5.0).expand(2, 5))
    with untouched(grid):
        grid(torch.zeros(2, 7))
        assert grid.shapes == [2, 7]
    assert grid.shapes == [2, 5]
    assert torch.equal(grid(torch.zeros(2, 7)), torch.arange(7.0).expand(2, 7))
