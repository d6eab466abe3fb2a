from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_prune import PruningPlan, build_groups, cut_channels
from lightning_prune.vision.segmentation_module import SegmentationModule
from tests.outside.segmentation.tiny import tiny

pytest.importorskip("segmentation_models_pytorch", reason="make test-segmentation installs it")
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same(first: SegmentationModule, second: SegmentationModule) -> bool:
    return torch.equal(first(IMAGES), second.eval()(IMAGES))


def network_state(module: SegmentationModule, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in module.network.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "model.", "net.inner."])
def test_a_network_within_any_module(prefix: str, tmp_path: Path) -> None:
    source = tiny()
    torch.save({"state_dict": network_state(source, prefix)}, tmp_path / "a.pt")
    module = tiny(scrambled=False, weights=str(tmp_path / "a.pt"))
    assert module.pretrained
    assert same(source, module)
    assert "weights" not in module.hparams


def test_a_folder_of_save_pretrained(tmp_path: Path) -> None:
    source = tiny()
    save_file(network_state(source), tmp_path / "model.safetensors")
    assert same(source, tiny(scrambled=False, weights=str(tmp_path)))


def test_an_encoder_alone(tmp_path: Path) -> None:
    source = tiny()
    state = dict(source.network.encoder.state_dict()) | {"fc.weight": torch.zeros(2, 2)}
    save_file(state, tmp_path / "encoder.safetensors")
    with pytest.warns(UserWarning, match="tensors start fresh, network.decoder"):
        module = tiny(scrambled=False, weights=str(tmp_path / "encoder.safetensors"))
    assert not module.pretrained
    ours, theirs = (each.network.encoder(IMAGES)[-1] for each in (module.eval(), source))
    assert torch.equal(ours, theirs)


def test_a_head_of_other_classes_starts_fresh(tmp_path: Path) -> None:
    torch.save(network_state(tiny()), tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="2 tensors start fresh, network.segmentation_head"):
        module = tiny(scrambled=False, num_classes=5, weights=str(tmp_path / "a.pt"))
    assert not module.pretrained
    assert module.eval()(IMAGES).shape[1] == 5


def cut(module: SegmentationModule) -> SegmentationModule:
    groups = build_groups(module, module.example_input_array)
    keep = {name: torch.arange(group.channels)[::2] for name, group in groups.items()}
    channels = {name: group.channels for name, group in groups.items()}
    cut_channels(module, groups, PruningPlan(keep, channels))
    return module.eval()


def test_a_pruned_module_is_built_from_its_state(tmp_path: Path) -> None:
    source = cut(tiny())
    torch.save({"state_dict": source.state_dict()}, tmp_path / "cut.ckpt")
    module = tiny(scrambled=False, weights=str(tmp_path / "cut.ckpt"))
    assert module.pretrained
    assert same(source, module)
    with pytest.raises(ValueError, match="pruned weights have 3 classes, the network has 4"):
        tiny(num_classes=4, weights=str(tmp_path / "cut.ckpt"))


def broken(name: str) -> Any:
    state = network_state(tiny())
    first = next(iter(state))
    if name == "nan":
        state[first] = torch.full_like(state[first], torch.nan)
    elif name == "more":
        state["extra.weight"] = torch.zeros(1)
    elif name == "missing":
        del state[first]
    elif name == "two":
        state = {**network_state(tiny(), "a."), **network_state(tiny(), "b.")}
    elif name == "other":
        state = {"conv.weight": torch.zeros(3)}
    elif name == "object":
        return {"model": tiny().network}
    return state


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "holds NaN or infinity"),
        ("more", "network.extra.weight too many.*pass its name and encoder"),
        ("missing", "missing.*pass its name and encoder"),
        ("two", "2 networks in it, at a., b."),
        ("other", "neither its head nor its encoder is there"),
        ("object", "refused: it holds pickled objects|pickled"),
    ],
)
def test_files_that_do_not_fit(name: str, message: str, tmp_path: Path) -> None:
    torch.save(broken(name), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        tiny(weights=str(tmp_path / "a.pt"))


def test_another_width_is_named(tmp_path: Path) -> None:
    other = tiny(options={"decoder_channels": [24, 16, 8, 8, 8]})
    torch.save(network_state(other), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"network.decoder.* is \(24, .*the network has \(16, "):
        tiny(weights=str(tmp_path / "a.pt"))


def test_no_such_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.pt"):
        tiny(weights="absent.pt")
