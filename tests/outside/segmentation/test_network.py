"""What segmentation_models_pytorch is asked for; `make test-segmentation` installs it."""

from typing import Any

import pytest
import torch

from lightning_prune.testing import check_prunable
from lightning_prune.vision.segmentation_network import build_network, check_size
from tests.outside.segmentation.tiny import ENCODER, OPTIONS, tiny

smp = pytest.importorskip(
    "segmentation_models_pytorch", reason="make test-segmentation installs it"
)


def test_logits_are_those_of_the_package() -> None:
    module = tiny()
    theirs = smp.Unet(ENCODER, encoder_weights=None, in_channels=3, classes=3, **OPTIONS).eval()
    theirs.load_state_dict(
        {key.removeprefix("network."): value for key, value in module.state_dict().items()}
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(module(images), theirs(images))
    assert torch.equal(module.predict_step((images, None), 0), theirs(images).argmax(1))


ARCHITECTURES = [
    ("Unet", {}),
    ("UnetPlusPlus", {}),
    ("MAnet", {}),
    ("Linknet", {"decoder_channels": None}),
    ("FPN", {"decoder_channels": None}),
    ("DeepLabV3Plus", {"decoder_channels": 16}),
    ("Segformer", {"decoder_channels": None}),
    ("UPerNet", {"decoder_channels": 16}),
    ("PSPNet", {"decoder_channels": None}),
]


@pytest.mark.parametrize(("name", "changes"), ARCHITECTURES, ids=lambda each: str(each))
def test_masked_is_cut(name: str, changes: dict[str, Any]) -> None:
    options = {key: value for key, value in (OPTIONS | changes).items() if value is not None}
    module = tiny(name=name, image_size=64, options=options)
    found = check_prunable(module, module.example_input_array)
    assert found.groups > 5
    assert all(key.startswith("network.segmentation_head") for key in found.refused)
    assert found.difference < 1e-5
    assert found.macs_after < 0.5 * found.macs_before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Unett"}, "name='Unett' is not known .*: did you mean Unet or"),
        ({"encoder": "resnet19"}, "encoder='resnet19' is not known .*: did you mean resnet18 or"),
        ({"encoder": "zzz"}, "known are .* more; tu-NAME is an encoder of timm"),
        ({"encoder": "tu-resnet1"}, "did you mean tu-resnet18 or"),
        ({"options": {"encoder_dept": 3}}, "options.encoder_dept .*did you mean encoder_depth"),
        ({"options": {"classes": 3}}, "options.classes: pass num_classes beside options"),
        ({"options": {"activation": "softmax"}}, "options.activation is no option of Unet"),
        ({"options": {"decoder_channels": [8]}}, "refuses Unet with encoder=.*decoder_channels"),
        (
            {"name": "DPT", "encoder": "resnet18", "options": None},
            "refuses DPT with encoder=resnet18",
        ),
    ],
)
def test_names_and_options_that_are_not_known(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_sizes_that_the_network_does_not_take() -> None:
    network = build_network("DeepLabV3Plus", "resnet18", 2, 3)
    with pytest.raises(ValueError, match=r"image_size=72: .*multiples of 16, such as 64 or 80"):
        check_size(network, "DeepLabV3Plus", 3, 72)
    with pytest.raises(ValueError, match=r"PAN cannot take images of 32 x 32 pixels"):
        tiny(name="PAN", encoder="resnet18", options=None)
    with pytest.raises(ValueError, match=r"gives maps of \(16, 16\) .*options.upsampling"):
        tiny(name="FPN", options={"upsampling": 2})


def test_grey_images() -> None:
    assert tiny(in_channels=1)(torch.rand(1, 1, 32, 32)).shape == (1, 3, 32, 32)
