from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.vision.mask_folder import MaskFolderData
from lightning_prune.vision.segmentation_loss import segmentation_loss
from lightning_prune.vision.segmentation_module import SegmentationModule
from tests.outside.segmentation.tiny import tiny
from tests.vision.mask_folders import write_folder

pytest.importorskip("segmentation_models_pytorch", reason="make test-segmentation installs it")
IGNORE = 255


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    masks = torch.randint(0, 3, (2, 1, 8, 8), generator=generator).float()
    masks = torch.nn.functional.interpolate(masks, scale_factor=4).long()[:, 0]
    masks[:, :4] = IGNORE
    return images, masks


@pytest.mark.parametrize(("cross_entropy", "dice"), [(1.0, 1.0), (0.5, 0.0), (0.0, 2.0)])
def test_the_loss_is_weighted(
    cross_entropy: float, dice: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tiny(cross_entropy_weight=cross_entropy, dice_weight=dice)
    for name in ("log", "log_dict"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    images, masks = batch()
    parts = segmentation_loss(module(images), masks, IGNORE)
    expected = cross_entropy * parts.cross_entropy + dice * parts.dice
    torch.testing.assert_close(module.training_step((images, masks), 0), expected)


def test_objects_are_pixels_that_the_network_judges() -> None:
    module = tiny(object_pixels=5)
    images, masks = batch()
    samples = module.object_samples((images, masks), module(images))
    assert len(samples.label) == 2 * 3 * 5
    predicted = module.predict_step(images, 0)
    for image, label, correct, x, y in zip(*samples[:5], strict=True):
        row, column = int(y * 32), int(x * 32)
        assert masks[image, row, column] == label
        assert bool(correct) == bool(predicted[image, row, column] == label)
    positions = module.object_positions((images, masks))
    assert torch.equal(positions.x, samples.x)
    assert positions.correct.all()
    assert 0 < samples.correct.float().mean() < 1


def test_scores_are_those_of_all_images_together(tmp_path: Path) -> None:
    data = MaskFolderData(write_folder(tmp_path), image_size=32, batch_size=2)
    module = tiny(names=["background", "left", "right"])
    trainer = pl.Trainer(
        logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path,
        enable_checkpointing=False,
    )  # fmt: skip
    (found,) = trainer.test(module, data, verbose=False)
    images, masks = next(iter(torch.utils.data.DataLoader(data.dataset("test"), 2)))
    predicted = module.predict_step(images.float() / 255, 0)
    each = {}
    for label, name in enumerate(data.names):
        ours, theirs = predicted == label, masks == label
        each[name] = float((ours & theirs).sum() / (ours | theirs).sum())
        assert found[f"test/iou/{name}"] == pytest.approx(each[name])
    assert found["test/miou"] == pytest.approx(sum(each.values()) / 3)
    assert found["test/accuracy"] == pytest.approx(float((predicted == masks).float().mean()))


def test_norms_and_biases_are_not_decayed() -> None:
    for name in ("adamw", "sgd"):
        module = tiny(optimizer=name, weight_decay=0.1)
        decayed, others = module.make_optimizer().param_groups
        assert all(p.ndim > 1 for p in decayed["params"])
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
        assert len(decayed["params"]) + len(others["params"]) == len(list(module.parameters()))


def test_a_checkpoint_rebuilds_the_module(tmp_path: Path) -> None:
    module = tiny(names=["a", "b", "c"], in_channels=1)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, max_epochs=1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = SegmentationModule.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    images = torch.rand(1, 1, 32, 32)
    assert torch.equal(module(images), again(images))
    assert dict(again.hparams) == dict(module.hparams)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": None}, "num_classes is missing"),
        ({"num_classes": 1}, "num_classes=1: pass an integer"),
        ({"names": ["a"]}, "names has 1 entries, num_classes is 3"),
        ({"ignore_index": 1}, "ignore_index=1 is one of the 3 classes"),
        ({"cross_entropy_weight": 0, "dice_weight": 0}, "nothing is learnt"),
        ({"lr": 0}, "lr=0: pass a number above 0"),
        ({"object_pixels": 0}, "object_pixels=0: pass an integer of at least 1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"num_classes": 4}, {}, "num_classes=3, the network was built with 4"),
        ({"in_channels": 1}, {}, "in_channels=3, the network was built with 1"),
        ({"image_size": 64}, {}, "image_size=32, the network was built with 64"),
        ({}, {"ignore_index": 9}, "ignore_index=9, the network was built with 255"),
    ],
)
def test_data_of_another_kind_are_refused(
    ours: dict[str, Any], theirs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = MaskFolderData(write_folder(tmp_path), image_size=32, **theirs)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, max_epochs=1)
    with pytest.raises(ValueError, match=message):
        trainer.fit(tiny(**ours), data)
