import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.vision.segmentation_loss import segmentation_loss

IGNORE = 255


def reference(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """Cross-entropy and soft Dice, pixel by pixel."""
    scores, truth = logits.double().numpy(), target.numpy()
    classes = scores.shape[1]
    logs, hits, mass, count = [], np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for image, row, column in np.ndindex(truth.shape):
        label = truth[image, row, column]
        if label == IGNORE:
            continue
        p = np.exp(scores[image, :, row, column])
        p /= p.sum()
        logs.append(np.log(p[label]))
        mass += p
        hits[label] += p[label]
        count[label] += 1
    there = count > 0
    dice = (2 * hits + 1) / (mass + count + 1)
    return -np.mean(logs), 1 - dice[there].mean()


def drawn(seed: int = 0, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (2, 5, 6), generator=generator)  # the last is absent
    target[torch.rand(target.shape, generator=generator) < 0.2] = IGNORE
    return 3 * torch.randn(2, classes, 5, 6, generator=generator), target


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_sum_over_pixels(seed: int) -> None:
    logits, target = drawn(seed)
    found = segmentation_loss(logits, target, IGNORE)
    assert [part.item() for part in found] == pytest.approx(reference(logits, target), rel=1e-5)


def test_cross_entropy_is_that_of_torch() -> None:
    logits, target = drawn()
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE)
    torch.testing.assert_close(segmentation_loss(logits, target, IGNORE).cross_entropy, expected)


def test_gradients_are_those_of_the_values() -> None:
    logits, target = drawn()
    leaf = logits.double().requires_grad_()
    # In double precision within, or differences of values would be noise.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        assert torch.autograd.gradcheck(
            lambda x: sum(segmentation_loss(x, target, IGNORE)), (leaf,)
        )


def test_ignored_pixels_have_no_gradient() -> None:
    logits, target = drawn()
    leaf = logits.requires_grad_()
    sum(segmentation_loss(leaf, target, IGNORE)).backward()
    ignored = (target == IGNORE)[:, None].expand_as(leaf)
    assert (leaf.grad[ignored] == 0).all()
    assert (leaf.grad[~ignored] != 0).all()


def test_a_batch_without_a_pixel_that_counts_costs_nothing() -> None:
    leaf = torch.randn(1, 3, 2, 2).requires_grad_()
    parts = segmentation_loss(leaf, torch.full((1, 2, 2), IGNORE), IGNORE)
    sum(parts).backward()
    assert [part.item() for part in parts] == [0, 0]
    assert (leaf.grad == 0).all()


@pytest.mark.parametrize("value", [-1, 3, 254])
def test_a_target_that_is_no_class_is_refused(value: int) -> None:
    target = torch.tensor([[[0, value]]])
    with pytest.raises(ValueError, match=f"value {value}, and there are 3 classes: pass classes"):
        segmentation_loss(torch.zeros(1, 3, 1, 2), target, IGNORE)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of shape \(1, 3, 2\) for logits of shape"):
        segmentation_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, dtype=torch.long), IGNORE)
