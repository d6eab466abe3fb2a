"""Small networks with more than one tensor in or out."""

import torch
from torch import Tensor, nn


class TwoInTwoOut(nn.Module):
    """Takes keyword arguments and returns a dict, in an order that is not alphabetical."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 + 2, 4)
        self.dropout = nn.Dropout(0.5)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, image: Tensor, extra: Tensor) -> dict[str, Tensor]:
        maps = self.norm(self.conv(image)).relu()
        logits = self.head(self.dropout(torch.cat((maps.mean((2, 3)), extra), dim=1)))
        return {"maps": maps, "logits": logits}


class OneByOne(nn.Module):
    """Works for a single sample only."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x.reshape(1, 4))


class Branching(nn.Module):
    """Decides by values, which no fixed graph can."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) if float(x.sum()) > 0 else x


class CountsSamples(nn.Module):
    """Repeats a row for each sample, whose number it takes as a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.ones(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.row.expand(len(x), -1)
