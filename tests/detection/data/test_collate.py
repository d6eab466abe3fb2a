import torch

from lightning_prune.detection.data.collate import collate


def test_objects_know_their_image() -> None:
    images = [torch.full((3, 2, 2), value, dtype=torch.uint8) for value in (0, 51, 255)]
    boxes = [torch.rand(2, 4), torch.zeros(0, 4), torch.rand(1, 4)]
    labels = [torch.tensor([4, 5]), torch.zeros(0, dtype=torch.int64), torch.tensor([6])]
    batch, targets = collate(list(zip(images, labels, boxes, strict=True)))
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch[:, 0, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    assert targets["image"].tolist() == [0, 0, 2]
    assert targets["label"].tolist() == [4, 5, 6]
    torch.testing.assert_close(targets["box"], torch.cat(boxes))
    assert {name: value.dtype for name, value in targets.items()} == {
        "image": torch.int64,
        "label": torch.int64,
        "box": torch.float32,
    }


def test_batch_without_objects() -> None:
    sample = (torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(0).long(), torch.zeros(0, 4))
    _, targets = collate([sample, sample])
    assert [tuple(value.shape) for value in targets.values()] == [(0,), (0,), (0, 4)]
