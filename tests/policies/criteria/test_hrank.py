import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.hrank import HRank
from tests.policies.fixtures import residual


def maps_of_rank(ranks: list[list[int]], size: int = 6) -> torch.Tensor:
    """(B, C, size, size) maps that are sums of as many outer products as their rank says."""
    generator = np.random.default_rng(0)
    rows = []
    for image in ranks:
        left, right = generator.normal(size=(2, len(image), size, size))
        rows.append([left[c][:, :r] @ right[c][:r] for c, r in enumerate(image)])
    return torch.tensor(np.array(rows), dtype=torch.float32)


def test_ranks_are_those_of_each_image_and_channel():
    ranks = [[0, 1, 4, 6], [2, 1, 3, 5]]
    maps = maps_of_rank(ranks)
    assert HRank(None).output_values(maps).tolist() == ranks
    assert HRank(None).output_values(maps.half()).shape == (2, 4)
    frames = torch.stack([maps[:1], maps[1:]], 2)
    assert HRank(None).output_values(frames).tolist() == [[1.0, 1.0, 3.5, 5.5]]
    uneven = torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(0)).relu()
    expected = [[np.linalg.matrix_rank(each) for each in image] for image in uneven.numpy()]
    assert HRank(None).output_values(uneven).tolist() == expected
    expected = [
        [np.linalg.matrix_rank(each, tol=0.2 * np.linalg.norm(each, 2)) for each in image]
        for image in uneven.numpy()
    ]
    assert HRank(0.2).output_values(uneven).tolist() == expected


def test_the_channels_of_highest_rank_stay():
    net, groups = residual()
    group = groups["a1.0"]
    ranks = torch.arange(float(group.channels)).roll(3)
    keep = HRank().choose(Evidence(net, group, outputs={"a1.0": ranks}), 2)
    assert keep.tolist() == sorted(ranks.argsort(descending=True)[:2].tolist())
    HRank().check(net, group)


def test_arguments_and_layers_without_maps_are_refused():
    with pytest.raises(ValueError, match=r"rtol=1: pass a number in \[0, 1\)"):
        HRank(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    group = trace_groups(net, torch.zeros(1, 4))["0"]
    with pytest.raises(ValueError, match="layer '0' of group '0' makes no maps of height and"):
        HRank().check(net, group)
