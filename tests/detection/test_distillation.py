"""What a dense detector says of pictures, and how far another one agrees."""

import pytest
import torch
from torch import Tensor

from lightning_prune.detection.distillation import (
    class_saliency,
    detection_agreement,
    detection_distillation_loss,
)
from lightning_prune.detection.module import DetectionModule
from lightning_prune.engine.output_agreement import agreement, distillation_loss, outputs_of

SIDES = [(64, 64), (64, 96), (96, 64), (32, 160), (160, 32), (32, 32), (96, 160), (192, 96)]


@pytest.fixture(scope="module")
def detector() -> DetectionModule:
    """Random weights, classes that are neither sure nor unlikely everywhere."""
    torch.manual_seed(0)
    module = DetectionModule(3, image_size=64)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 8 + torch.randn_like(parameter)
            elif parameter.ndim > 1:
                parameter *= 1.5
    return module.eval()


@pytest.mark.parametrize(("height", "width"), SIDES)
@pytest.mark.parametrize("images", [1, 3])
def test_the_map_is_the_largest_probability_over_classes_and_levels(
    detector: DetectionModule, height: int, width: int, images: int
):
    torch.manual_seed(height + width)
    x = torch.rand(images, 3, height, width)
    with torch.no_grad():
        predictions = detector(x)
        found = detector.saliency(predictions)
    assert found is not None
    assert found.shape == (images, height // 8, width // 8)
    assert not found.requires_grad
    sure = predictions[:, 4:].amax(1)
    for row in range(height // 8):
        for column in range(width // 8):
            start, best = 0, torch.zeros(images)
            for stride in (8, 16, 32):
                columns = width // stride
                place = (row * 8 // stride) * columns + column * 8 // stride
                best = torch.maximum(best, sure[:, start + place])
                start += height // stride * columns
            assert torch.equal(found[:, row, column], best)


def test_an_object_is_where_it_is():
    """Of an image of 64 x 96, on the level of stride 16 in row 1, column 4."""
    columns = 12
    predictions = torch.zeros(2, 6, 21 * 6)
    predictions[:, 0, :96] = (torch.arange(96) % columns + 0.5) * 8
    predictions[1, 5, 96 + 1 * 6 + 4] = 0.7
    found = class_saliency(predictions)
    wanted = torch.zeros(2, 8, 12)
    wanted[1, 2:4, 8:10] = 0.7
    assert torch.equal(found, wanted)


def test_other_numbers_of_anchors_have_no_map():
    for anchors in (0, 300, 22):
        assert class_saliency(torch.zeros(1, 6, anchors)) is None


def random_predictions(seed: int = 0, classes: int = 3, anchors: int = 84) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    predictions = torch.rand(2, 4 + classes, anchors, generator=random)
    predictions[:, :4] = predictions[:, :4] * 60 + 2
    return predictions


def test_the_loss_is_zero_for_what_is_the_same_and_grows_with_the_distance():
    dense = random_predictions()
    assert float(detection_distillation_loss(dense, dense)) == pytest.approx(0, abs=1e-6)
    losses = []
    for distance in (0.01, 0.1, 0.5):
        other = dense + distance * (random_predictions(1) - dense)
        losses.append(float(detection_distillation_loss(other, dense)))
    assert 0 < losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("certain", [0.0, 1.0])
@pytest.mark.parametrize("given", [0.0, 0.5, 1.0])
def test_probabilities_of_0_and_1_have_a_finite_loss_and_gradient(certain: float, given: float):
    dense, own = random_predictions(), random_predictions(1)
    dense[:, 4:], own[:, 4:] = certain, given
    own.requires_grad_(True)
    loss = detection_distillation_loss(own, dense)
    loss.backward()
    assert loss.isfinite()
    assert own.grad is not None
    assert own.grad.isfinite().all()


def test_boxes_of_no_size_and_images_without_objects_have_a_finite_loss():
    dense, own = random_predictions(), random_predictions(1).requires_grad_(True)
    dense[:, 2:4] = 0
    loss = detection_distillation_loss(own, dense)
    loss.backward()
    assert loss.isfinite()
    assert own.grad is not None
    assert own.grad.isfinite().all()


def test_sure_boxes_weigh_more():
    dense = random_predictions()
    dense[:, 4:] = 0.01
    dense[:, 4, 0] = 0.9
    moved = []
    for anchor in (0, 1):
        other = dense.clone()
        other[:, :2, anchor] += 5
        moved.append(float(detection_distillation_loss(other, dense)))
    assert moved[0] > 5 * moved[1] > 0


def test_the_gradient_leads_to_the_dense_network(detector: DetectionModule):
    torch.manual_seed(1)
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        dense = detector(x)
    own = (dense + 0.05 * torch.randn_like(dense)).clamp(min=0).requires_grad_(True)
    own.data[:, 4:].clamp_(max=1)
    before = detector.distillation_loss(own, dense)
    before.backward()
    with torch.no_grad():
        after = detector.distillation_loss(own - 1e-2 * own.grad, dense)
    assert after < before
    assert distillation_loss(detector)(own, dense) == before


def test_a_detector_agrees_with_itself_and_less_with_noise(detector: DetectionModule):
    torch.manual_seed(2)
    batches = [torch.rand(2, 3, 64, 64), torch.rand(1, 3, 64, 64)]
    dense = outputs_of(detector, batches)
    assert (torch.cat([d[:, 4:].flatten() for d in dense]) > 0.25).any()
    assert agreement(detector, batches, dense) == pytest.approx(1.0, abs=1e-3)
    found = []
    for noise in (0.02, 0.5):
        others = [d.clone() for d in dense]
        for other in others:
            other[:, :4] += noise * 32 * torch.randn_like(other[:, :4])
            other[:, 4:] = (other[:, 4:] + noise * torch.randn_like(other[:, 4:])).clamp(0, 1)
        found.append(detector.agreement(others, dense))
    assert 1 > found[0] > found[1] >= 0


def test_agreement_is_the_overlap_of_boxes():
    """IoU 0.8 counts at the thresholds .5 to .8: 7 of 10, or 6 where .8 is not reached."""
    dense = torch.tensor([[0.0, 0.0, 100.0, 100.0, 0.9, 0.0]])
    other = torch.tensor([[0.0, 0.0, 100.0, 82.0, 0.5, 0.0]])
    assert detection_agreement([[other]], [[dense]], 0.25) == pytest.approx(0.7, abs=1e-6)
    wrong_class = other + torch.tensor([0, 0, 0, 0, 0, 1.0])
    assert detection_agreement([[wrong_class]], [[dense]], 0.25) == 0.0


def test_images_without_objects_do_not_break_the_agreement():
    none = torch.zeros(0, 6)
    dense = torch.tensor([[0.0, 0.0, 100.0, 100.0, 0.9, 0.0]])
    assert detection_agreement([[none, dense]], [[none, dense]], 0.25) == pytest.approx(1.0)
    assert detection_agreement([[none]], [[dense]], 0.25) == 0.0


def test_where_the_dense_network_is_sure_of_nothing_the_other_one_should_not_be_either():
    nothing, unsure = torch.zeros(0, 6), torch.tensor([[1.0, 1.0, 9.0, 9.0, 0.1, 0.0]])
    sure = torch.tensor([[1.0, 1.0, 9.0, 9.0, 0.9, 0.0]])
    assert detection_agreement([[unsure]], [[nothing]], 0.25) == 1.0
    assert detection_agreement([[sure]], [[unsure]], 0.25) == 0.0
