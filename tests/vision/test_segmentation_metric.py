import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.vision.segmentation_metric import SegmentationIoU

IGNORE = 255


def reference(predicted: np.ndarray, target: np.ndarray, classes: int) -> list[float]:
    """IoU of every class as sets of pixels."""
    valid = target != IGNORE
    values = []
    for label in range(classes):
        ours, theirs = (predicted == label) & valid, (target == label) & valid
        union = (ours | theirs).sum()
        values.append((ours & theirs).sum() / union if union else np.nan)
    return values


def drawn(seed: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted, target = torch.randint(0, classes, (2, 3, 7, 5), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = IGNORE
    return predicted, target


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_equals_brute_force(classes: int) -> None:
    metric = SegmentationIoU(classes, IGNORE)
    parts = [drawn(seed, classes) for seed in range(3)]
    for predicted, target in parts:
        metric.update(predicted, target)
    predicted, target = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    found, expected = metric.compute(), reference(predicted, target, classes)
    np.testing.assert_allclose(found["iou"].numpy(), expected, rtol=1e-6)
    assert found["miou"].item() == pytest.approx(np.nanmean(expected), rel=1e-6)
    valid = target != IGNORE
    assert found["accuracy"].item() == pytest.approx((predicted == target)[valid].mean(), rel=1e-6)


def test_a_class_that_never_occurs_is_left_out_of_the_mean() -> None:
    metric = SegmentationIoU(4, IGNORE)
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 2]]]))
    found = metric.compute()
    assert found["iou"].isnan().tolist() == [False, False, False, True]
    assert found["miou"].item() == pytest.approx(1 / 3)


def test_parts_merge_to_the_whole() -> None:
    whole, *parts = (SegmentationIoU(3, IGNORE) for _ in range(3))
    for seed, part in enumerate(parts):
        for metric in (whole, part):
            metric.update(*drawn(seed, 3))
    # As torchmetrics sums up the states of several processes.
    parts[0].confusion += parts[1].confusion
    for key, value in whole.compute().items():
        assert torch.equal(parts[0].compute()[key], value)


def test_no_pixel_is_said() -> None:
    metric = SegmentationIoU(3, IGNORE)
    metric.update(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), IGNORE))
    with pytest.warns(UserWarning, match="no pixel counted"):
        found = metric.compute()
    assert found["miou"] == found["accuracy"] == 0
