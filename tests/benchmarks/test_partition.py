import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
X = torch.randn(1, 3, 64, 64)


@pytest.fixture
def partition(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import partition

    yield partition
    sys.modules.pop("partition")


@pytest.mark.parametrize(("make", "channels"), [(resnet18, 2880), (mobilenet_v2, 9128)])
@pytest.mark.filterwarnings("ignore")
def test_torch_prunings_channels_are_ours(partition, make, channels):
    found = partition.compare(make(weights=None).eval(), X)
    counts = (found["same"], found["only_ours"], found["only_theirs"])
    assert counts == (channels, 0, 0)


@pytest.mark.filterwarnings("ignore")
def test_grouped_convolutions_are_the_known_difference(partition):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(8, 2, 1))
    found = partition.compare(net, X)
    # Whole groups: 2 rows of the first, 2 of the second, 2 columns of the third are one channel.
    assert (found["same"], found["only_ours"], found["only_theirs"]) == (0, 4, 16)
    assert found["layers"][("ours", "0")] == 4
