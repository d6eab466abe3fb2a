"""What a detection module takes from weights that are not as published, and keeps."""

import lightning as L
import pytest
import torch
from torch import nn

from lightning_prune import DigitsDetectionDataModule
from lightning_prune.detection.arguments import check_targets
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.ultralytics_metadata import ultralytics_metadata
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loading import load_pruned
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels
from tests.detection.network.foreign_pickle import save_foreign
from tests.detection.network.layout import recipe_state, ultralytics_layout

SIDE = 64
NARROW = {"widths": [8, 8, 16, 16, 16], "depths": [1, 1, 1]}
BUILT = {
    **NARROW,
    "activation": "leaky_relu(0.1)",
    "activations": {"backbone.p5.spp.conv1": "identity"},
    "norm_eps": 1e-4,
    "pool_kernel": 3,
    "pools": 2,
    "class_width": 20,
}


def scrambled(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.network.state_dict().values():
            if value.is_floating_point() and value.ndim == 1 and len(value) != 16:
                value.add_(torch.rand(value.shape, generator=generator))
    return module


def grey_batch(count=2, channels=1):
    images = torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]] * count)
    return images, {"image": torch.arange(count), "label": torch.zeros(count).long(), "box": box}


def said(module, images):
    with torch.no_grad():
        return module.eval()(images)


@pytest.mark.parametrize("reset_blocks", [False, True])
def test_what_is_not_as_published_survives_every_way_of_saving(tmp_path, reset_blocks):
    module = scrambled(
        DetectionModule(
            2, architecture=BUILT, in_channels=1, image_size=SIDE, reset_blocks=reset_blocks
        )
    )
    assert module.hparams["size"] == "custom"
    images, _ = grey_batch()
    groups = trace_groups(module, module.example_input_array)
    keep = {name: torch.arange(group.channels // 2) for name, group in groups.items()}
    cut_channels(module, groups, PruningPlan(keep, {n: g.channels for n, g in groups.items()}))
    expected = said(module, images)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    torch.save(module.state_dict(), tmp_path / "state.pt")
    hparams = torch.load(tmp_path / "cut.ckpt", weights_only=True)["hyper_parameters"]
    assert (hparams["architecture"], hparams["in_channels"]) == (BUILT, 1)
    again = [
        DetectionModule.load_from_checkpoint(tmp_path / "cut.ckpt"),
        load_pruned(DetectionModule, tmp_path / "cut.ckpt"),
        DetectionModule(weights=str(tmp_path / "cut.ckpt"), reset_blocks=reset_blocks),
        DetectionModule(weights=str(tmp_path / "state.pt")),
    ]
    for other in again:
        torch.testing.assert_close(said(other, images), expected, rtol=0, atol=1e-5)


def test_trains_and_validates_grey_images():
    module = DetectionModule(2, architecture=NARROW, in_channels=1, image_size=SIDE)
    trainer = L.Trainer(
        max_steps=2, logger=False, enable_progress_bar=False, enable_checkpointing=False,
        accelerator="cpu", enable_model_summary=False, num_sanity_val_steps=1, log_every_n_steps=1,
    )  # fmt: skip
    before = module.network.backbone.p1.conv.weight.detach().clone()
    loader = torch.utils.data.DataLoader([grey_batch()], batch_size=None)
    trainer.fit(module, loader, loader)
    assert module.network.backbone.p1.conv.weight.shape == (8, 1, 3, 3)
    assert not torch.equal(module.network.backbone.p1.conv.weight, before)
    assert 0 <= trainer.callback_metrics["val/map50"] <= 1
    assert ultralytics_metadata(module, (SIDE, SIDE))["channels"] == "1"


def test_says_early_which_channels_the_data_deliver():
    module = DetectionModule(10, architecture=NARROW, in_channels=1, image_size=SIDE)
    data = DigitsDetectionDataModule(
        image_size=SIDE, train_images=2, val_images=2, test_images=2, batch_size=2
    )
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    message = "the images have 3 channels, the network takes 1 channel: .*data.channels=1"
    with pytest.raises(ValueError, match=message):
        trainer.validate(module, data)
    for step in (module.training_step, module.validation_step):
        with pytest.raises(ValueError, match=message):
            step(grey_batch(channels=3), 0)
    module = DetectionModule(2, architecture=NARROW, image_size=SIDE)
    with pytest.raises(ValueError, match=r"have 4 channels, .* takes 3 channels: in_channels=4"):
        module.training_step(grey_batch(channels=4), 0)


def narrow_state(in_channels=3):
    torch.manual_seed(0)
    return YOLOv8("custom", 2, in_channels, architecture=NARROW).state_dict()


@pytest.mark.parametrize(("own", "wanted"), [(3, 1), (4, 1), (1, 3)])
def test_weights_of_other_channels_see_grey_images_alike(tmp_path, own, wanted):
    state = narrow_state(own)
    state.pop("architecture")
    torch.save(state, tmp_path / "x.pt")
    one = DetectionModule(weights=str(tmp_path / "x.pt"), image_size=SIDE)
    other = DetectionModule(weights=str(tmp_path / "x.pt"), image_size=SIDE, in_channels=wanted)
    grey, _ = grey_batch()
    found = said(other, grey.expand(-1, wanted, -1, -1))
    expected = said(one, grey.expand(-1, own, -1, -1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    if own == 3:
        with pytest.raises(ValueError, match="take images of 3 channels, and these cannot"):
            DetectionModule(weights=str(tmp_path / "x.pt"), in_channels=4)


def test_another_activation_than_the_file_states_has_to_be_learned(tmp_path):
    state = recipe_state(ultralytics_layout("n", 2), 1, 1.0)
    path = str(save_foreign(tmp_path / "x.pt", {"model": state}, act=nn.ReLU()))
    with pytest.warns(UserWarning, match="architecture.activation=mish replaces .*, relu"):
        module = DetectionModule(weights=path, architecture={"activation": "mish"})
    assert not module.pretrained
    kept = DetectionModule(weights=path, architecture={"activation": "relu", "pools": 3})
    assert kept.pretrained
    assert kept.hparams["architecture"] == {"activation": "relu"}
    with pytest.raises(
        ValueError, match=r"architecture\.pools=2: the weights have 3; leave it out"
    ):
        DetectionModule(weights=path, architecture={"pools": 2})
    # A plain state dict says nothing: what the user says is what it was trained with.
    torch.save(state, tmp_path / "state.pt")
    told = DetectionModule(weights=str(tmp_path / "state.pt"), architecture={"activation": "relu"})
    assert told.pretrained
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(said(told, images), said(kept, images), rtol=0, atol=0)


def test_names_that_are_only_numbers_give_way_to_real_ones(tmp_path):
    state = recipe_state(ultralytics_layout("n", 2), 1, 1.0)
    path = save_foreign(tmp_path / "x.pt", {"model": state}, names={0: "0", 1: "1"})
    module = DetectionModule(weights=str(path), names=["cat", "dog"])
    assert module.hparams["names"] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, r"in_channels=0: pass an integer in \[1, 4096\]"),
        ({"in_channels": 1.0}, "in_channels=1.0"),
        ({"architecture": {"activatoin": "relu"}}, "did you mean activation"),
        ({"architecture": {"activation": "relu(3)"}}, "takes none"),
        ({"size": "custom"}, "needs widths and depths"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DetectionModule(2, **arguments)


@pytest.mark.parametrize(
    ("targets", "found"), [(torch.zeros(2), "Tensor"), ({"label": torch.zeros(2)}, "{label}")]
)
def test_batches_of_another_task(targets: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"deliver {found} beside the images, a detector takes"):
        check_targets(targets)
    module = DetectionModule(2, image_size=32)
    with pytest.raises(ValueError, match="choose data=yolo_folder or data=coco_json"):
        module.training_step((torch.zeros(2, 3, 32, 32), targets), 0)
