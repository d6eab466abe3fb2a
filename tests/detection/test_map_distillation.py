import pytest
import torch
from torch.nn import functional as F

from lightning_prune.detection.map_distillation import RawMaps, map_distillation_loss, raw_maps
from lightning_prune.detection.module import DetectionModule


def random_maps(seed: int, bins: int = 16) -> RawMaps:
    torch.manual_seed(seed)
    return RawMaps(torch.randn(2, 4 * bins, 7), torch.randn(2, 3, 7))


def test_by_loops():
    maps, dense = random_maps(0), random_maps(1)
    cross = least = 0.0
    boxes, sure = 0.0, 0.0
    for image in range(2):
        for anchor in range(7):
            p = dense.classes[image, :, anchor].sigmoid()
            q = maps.classes[image, :, anchor].sigmoid()
            cross += float(-(p * q.log() + (1 - p) * (1 - q).log()).sum())
            least += float(-(p * p.log() + (1 - p) * (1 - p).log()).sum())
            for side in range(4):
                part = slice(16 * side, 16 * side + 16)
                given = (maps.boxes[image, part, anchor] / 10).log_softmax(0)
                wanted = (dense.boxes[image, part, anchor] / 10).softmax(0)
                boxes += float(p.max()) * float(F.kl_div(given, wanted, reduction="sum")) * 100 / 4
            sure += float(p.max())
    expected = cross / least - 1 + boxes / sure
    assert map_distillation_loss(maps, dense).item() == pytest.approx(expected, rel=1e-4)


def test_equal_maps_have_no_loss_and_confident_anchors_count():
    maps = random_maps(0)
    assert map_distillation_loss(maps, maps).item() == pytest.approx(0.0, abs=1e-6)
    dense = RawMaps(maps.boxes, torch.full_like(maps.classes, -20.0))
    dense.classes[0, 0, 3] = 5.0
    moved = maps.boxes.clone()
    moved[0, :, 2] += torch.randn(64)  # where the dense network is sure of nothing

    def loss(boxes: torch.Tensor) -> float:
        return map_distillation_loss(RawMaps(boxes, dense.classes), dense).item()

    base = loss(maps.boxes)
    assert loss(moved) == pytest.approx(base, abs=1e-3)
    moved[0, :, 3] += torch.randn(64)
    assert loss(moved) > base + 0.1


def test_forms_of_raw_maps():
    maps, other = random_maps(0), random_maps(1, bins=1)
    named = {"boxes": maps.boxes, "scores": maps.classes, "feats": [torch.zeros(1)]}
    heads = {"one2many": named, "one2one": {"boxes": other.boxes, "scores": other.classes}}
    assert [len(raw_maps(form, 3)) for form in (named, heads)] == [1, 2]
    assert torch.equal(raw_maps(heads, 3)[1].boxes, other.boxes)
    assert raw_maps(torch.zeros(1, 7, 84), 3) == []
    assert raw_maps((torch.zeros(1, 7, 84), [torch.zeros(1, 67, 2, 2)]), 3) == []
    loss = map_distillation_loss(other, RawMaps(other.boxes + 2, other.classes))
    assert loss.item() == pytest.approx(1.5, rel=1e-5)  # smooth L1 of 2


def test_the_module_takes_maps_and_predictions():
    torch.manual_seed(0)
    module, images = DetectionModule(num_classes=3, image_size=64), torch.rand(2, 3, 64, 64)
    module.network.eval()
    maps = [level + 0.1 * torch.randn_like(level) for level in module.network.train()(images)]
    dense = module.network(images)
    assert module.distillation_loss(dense, dense).item() == pytest.approx(0.0, abs=1e-5)
    expected = map_distillation_loss(raw_maps(maps, 3)[0], raw_maps(dense, 3)[0])
    assert torch.equal(module.distillation_loss(maps, dense), expected)
    predictions = module.eval()(images)
    assert module.distillation_loss(predictions, predictions).item() == pytest.approx(0, abs=1e-5)
