import numpy as np
import pytest
import torch

from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.apoz import APoZ
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from tests.networks import EXAMPLE
from tests.policies.fixtures import residual, shuffled_group


def reference(output: np.ndarray, threshold: float) -> np.ndarray:
    """Hu et al.'s 1 - APoZ by loops, zeros taken up to a fraction of each image's scale."""
    images, channels = output.shape[:2]
    used = np.zeros(channels)
    for n in range(images):
        limit = threshold * np.sqrt((output[n].astype(np.float64) ** 2).mean())
        for c in range(channels):
            used[c] += (np.abs(output[n, c]) > limit).mean() / images
    return used


@pytest.mark.parametrize("shape", [(5, 6, 4, 3), (5, 6), (5, 6, 2, 4, 3)])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_usage_is_the_fraction_of_places_that_are_not_zero(shape, threshold):
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()
    output[:, 2] = 0
    found = APoZ(threshold).output_values(output)
    assert found.shape == (5, 6)
    if output.ndim == 4:
        channels_last = output.contiguous(memory_format=torch.channels_last)
        assert torch.equal(APoZ(threshold).output_values(channels_last), found)
    np.testing.assert_allclose(found.mean(0), reference(output.numpy(), threshold), atol=1e-6)
    assert found[:, 2].tolist() == [0] * 5


def test_tied_layers_count_alike_and_missing_activations_are_named():
    group = shuffled_group()
    outputs = {"a": torch.arange(5.0), "b": torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])}
    found = APoZ().importance(Evidence(None, group, outputs=outputs))
    # Channel by channel: a's own, and b's row that stands for it.
    assert found.tolist() == [(0 + 20) / 2, (1 + 40) / 2, (2 + 10) / 2, (3 + 30) / 2, (4 + 50) / 2]
    with pytest.raises(ValueError, match="no activation of layer 'a' was collected"):
        APoZ().importance(Evidence(None, group))
    with pytest.raises(ValueError, match="threshold=-1: pass a number of at least 0, up to which"):
        APoZ(-1)


def test_a_score_that_tells_no_channels_apart_warns():
    group = shuffled_group()
    with pytest.warns(UserWarning, match=r"group 'a' score all of its 5 channels alike \(1\)"):
        APoZ().importance(Evidence(None, group, outputs=dict.fromkeys("ab", torch.ones(5))))


@pytest.mark.parametrize("weighed", [False, True])
def test_a_ratio_is_chosen_by_what_was_collected(weighed):
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    used = torch.rand(groups["a1.0"].channels, generator=torch.Generator().manual_seed(1))
    evidence = {"a1.0": Evidence(net, groups["a1.0"], outputs={"a1.0": used})}
    criterion = MacAware(APoZ()) if weighed else APoZ()
    assert criterion.needs == {"activations"}
    selection = RatioSelection(groups, ("a1.0",), macs, criterion)
    kept = selection.select(net, 0.5, None, PruningPlan(), evidence).plan.keep["a1.0"]
    half = groups["a1.0"].channels - groups["a1.0"].channels // 2
    assert kept.tolist() == sorted(used.argsort(descending=True)[:half].tolist())
