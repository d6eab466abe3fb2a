"""Classifiers of an installed timm: `make test-timm` installs it beside the others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lightning_prune.loading import load_pruned
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.scramble import scramble
from lightning_prune.testing import check_prunable
from lightning_prune.vision.classifier_module import ClassifierModule
from lightning_prune.vision.image_folder_views import EvaluationView, evaluation_view
from tests.networks import random_plan
from tests.vision.class_folders import write_splits

timm = pytest.importorskip("timm", reason="make test-timm installs it")

SMALL = {
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"arguments": {"patch_size": 8, "depth": 2}},
    "resnet18": {},
    "mobilenetv3_small_050": {},
}


def module(name: str, **options: object) -> ClassifierModule:
    torch.manual_seed(0)
    options = {"image_size": 32, "num_classes": 4, **SMALL.get(name, {}), **options}
    own = ClassifierModule(name, **options)  # type: ignore[arg-type]
    scramble(own.network)
    return own.eval()


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_timm(name: str, tmp_path: Path):
    arguments = SMALL[name].get("arguments", {})
    size = {"img_size": 32} if "vit" in name else {}
    theirs = timm.create_model(name, num_classes=4, **size, **arguments)
    scramble(theirs)
    save_file(theirs.state_dict(), tmp_path / "x.safetensors")
    own = ClassifierModule(
        name, weights=str(tmp_path / "x.safetensors"), image_size=32, arguments=arguments
    )
    assert own.pretrained
    config = timm.data.resolve_model_data_config(theirs)
    pixels = np.random.default_rng(0).integers(0, 256, (57, 43, 3), dtype=np.uint8)
    transform = timm.data.create_transform(**{**config, "input_size": (3, 32, 32)})
    view = EvaluationView(**own.evaluation_view)
    with torch.no_grad():
        expected = theirs.eval()(transform(Image.fromarray(pixels))[None])
        found = own.eval()(evaluation_view(pixels, view)[None] / 255)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "inception_v3"])
def test_evaluation_is_that_of_timm(name: str):
    """The centre of the image, in the values that timm's transform gives before the means."""
    config = timm.data.resolve_model_data_config(timm.create_model(name, num_classes=4))
    transform = timm.data.create_transform(**config)
    own = ClassifierModule(name, num_classes=4)
    view = EvaluationView(**own.evaluation_view)
    assert view.image_size == config["input_size"][1]
    mean, std = (torch.tensor(own.hparams[key])[:, None, None] for key in ("mean", "std"))
    for seed, shape in enumerate([(300, 400), (401, 233)]):
        pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        found = (evaluation_view(pixels, view) / 255 - mean) / std
        assert torch.allclose(found, transform(Image.fromarray(pixels)), atol=1e-5)


def test_position_embeddings_and_channels_are_fitted_as_timm_does(tmp_path: Path):
    arguments = {"patch_size": 8, "depth": 1}
    options = {"num_classes": 4, **arguments}
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, **options)
    scramble(theirs)
    save_file(theirs.state_dict(), tmp_path / "x.safetensors")
    overlay = {"state_dict": theirs.state_dict(), "num_classes": 4}
    expected = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, img_size=48,
        in_chans=1, **options,
    )  # fmt: skip
    own = ClassifierModule(
        "vit_tiny_patch16_224", weights=str(tmp_path / "x.safetensors"), image_size=48,
        in_channels=1, arguments=arguments,
    )  # fmt: skip
    assert own.pretrained
    state = own.network.state_dict()
    assert state["pos_embed"].shape == (1, 37, 192)
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


def test_a_head_of_other_classes_starts_fresh_whatever_else_is_fitted(tmp_path: Path):
    theirs = timm.create_model("resnet18", num_classes=5)
    save_file(theirs.state_dict(), tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match="weights have 5 classes, num_classes is 3"):
        own = ClassifierModule(
            "resnet18", 3, str(tmp_path / "x.safetensors"), image_size=32, in_channels=1
        )
    assert torch.equal(own.network.conv1.weight, theirs.conv1.weight.sum(1, keepdim=True))
    assert torch.equal(own.network.layer3[0].conv1.weight, theirs.layer3[0].conv1.weight)
    assert own.network.fc.weight.shape == (3, 512)
    assert not own.pretrained


def test_weights_of_another_network_are_refused(tmp_path: Path):
    save_file(timm.create_model("resnet18", num_classes=5).state_dict(), tmp_path / "x.safetensors")
    path = str(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"have no class head of name='convnext_atto' \(head.fc\)"):
        ClassifierModule("convnext_atto", weights=path, image_size=32)
    for name in ("resnet34", "resnet50"):
        with pytest.raises(ValueError, match=f"another network than name='{name}': of its tensors"):
            ClassifierModule(name, weights=path, image_size=32)
    save_file(timm.create_model("convnext_atto", num_classes=5).state_dict(), path)
    with pytest.raises(ValueError, match=r"do not fit: .*size mismatch for stem.0.weight"):
        ClassifierModule("convnext_femto", weights=path, image_size=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "convnxt_tiny"}, "no network of timm .*: did you mean convnext_tiny"),
        ({"name": "resnet18.abc"}, "resnet18.a1_in1k"),
        ({"name": "hf-hub:timm/x"}, "no network of timm"),
        ({"name": "resnet18", "arguments": {"depth": 3}}, "timm cannot build resnet18: .*depth"),
        ({"name": "vit_tiny_patch16_224", "image_size": 8}, "vit_tiny_patch16_224|no images of"),
        ({"name": "vgg11", "image_size": 16}, r"takes no images of \(3, 16, 16\).*image_size"),
    ],
)
def test_what_timm_cannot_build_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ClassifierModule(**{"num_classes": 3, **options})


def test_published_weights_without_a_network_are_one_error(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(ValueError, match=r"no weights of resnet18 came \(no route to host\)"):
        ClassifierModule("resnet18", num_classes=3, pretrained=True)


@pytest.mark.parametrize("name", SMALL)
def test_masked_equals_cut_and_the_cut_network_is_loaded(name: str, tmp_path: Path):
    own = module(name)
    example = torch.rand(2, 3, 32, 32)
    assert check_prunable(own, example).groups >= 2
    groups = build_groups(own, own.example_input_array)
    cut_channels(own, groups, random_plan(groups))
    torch.save(own.state_dict(), tmp_path / "cut.pth")
    loaded = ClassifierModule(
        name, weights=str(tmp_path / "cut.pth"), image_size=32, **SMALL[name]
    ).eval()
    with torch.no_grad():
        assert torch.equal(loaded(example), own(example))


RECIPES = ["channel", "sequential_activation"]


@pytest.mark.filterwarnings("ignore:classes with fewer than 10 matched objects")
@pytest.mark.filterwarnings("ignore:.* groups separate the classes no better than labels dealt")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_line_prunes_by_name(recipe: str, cli, tmp_path: Path):
    write_splits(tmp_path / "data")
    outcome = cli(
        "model=timm", "model.name=convnext_atto", "data=image_folder", "data.image_size=32",
        f"data.root={tmp_path / 'data'}", "data.num_workers=0", "data.batch_size=5",
        f"+pruning={recipe}", "dense_epochs=1", "recovery_epochs=2", "trainer.accelerator=cpu",
        "pruning.masker.layers=[network.stages.3.*]", "pruning.masker.mac_target=null",
        "pruning.report.latency_rounds=0", "pruning.report.figures=false", "logger=none",
        *(["pruning.masker.pruning_ratio=0.5"] if recipe == "channel" else []),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "test/accuracy" in outcome.out + outcome.err
    path = outcome.folder / "checkpoints/best_pruned.ckpt"
    loaded = load_pruned(ClassifierModule, path)
    assert loaded.network.stages[3].blocks[0].mlp.fc1.weight.shape[0] < 1280
    assert loaded.hparams["names"] == ["cat", "dog"]
