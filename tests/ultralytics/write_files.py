"""Runs with an installed `ultralytics`, in a process of its own: writes files for the tests.

Usage: python write_files.py FOLDER. Every NAME.pt gets a NAME.reference.pt: an image, and what
their model says to it in float and in double.
"""

import copy
import inspect
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import SPPF
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

NAMES = ["cell", "ring", "star"]


def settings(**changes: Any) -> dict[str, Any]:
    return {**yaml_model_load("yolov8n.yaml"), "nc": 3, **changes}


def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that no fresh network has: statistics, norms, last biases."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def build(channels: int = 3, **changes: Any) -> nn.Module:
    model = scrambled(DetectionModel(settings(**changes), ch=channels, verbose=False))
    model.names = dict(enumerate(NAMES[: model.yaml["nc"]]))
    model.args = {"imgsz": 96, "task": "detect"}
    return model


def with_layer(index: int, arguments: list[Any]) -> dict[str, Any]:
    """Return settings in which one layer of the backbone has other arguments."""
    changed = copy.deepcopy(settings())
    changed["backbone"][index][3] = arguments
    return changed


def shortcuts_swapped() -> dict[str, Any]:
    changed = copy.deepcopy(settings())
    for layer in changed["backbone"] + changed["head"]:
        if layer[2] == "C2f":
            width, *flag = layer[3]
            layer[3] = [width] if flag else [width, True]
    return changed


def checkpoint(model: nn.Module | None, ema: nn.Module | None = None) -> dict[str, Any]:
    return {
        "epoch": -1, "best_fitness": None, "model": model, "ema": ema, "updates": None,
        "optimizer": None, "train_args": {"imgsz": 96}, "date": "2024-01-01", "version": "8",
    }  # fmt: skip


def models() -> Iterator[tuple[str, nn.Module]]:
    yield "n", build()
    yield "s", build(scale="s")
    yield "grey", build(channels=1)
    yield "four", build(channels=4)
    yield "scaled", build(scales={"n": [0.67, 0.375, 768]})
    yield "narrow", build(scales={"n": [0.33, 0.125, 1024]})
    yield "pool", build(**with_layer(9, [1024, 7]))
    yield "shortcuts", build(**shortcuts_swapped())
    if "n" in inspect.signature(SPPF).parameters:  # of 8.4
        yield "pools", build(**with_layer(9, [1024, 5, 2, True]))
    yield "relu", build(activation="nn.ReLU()")
    yield "leaky", build(activation="nn.LeakyReLU(0.1)")
    yield "hardswish", build(activation="torch.nn.Hardswish()")
    DetectionModel(settings(activation="nn.SiLU()"), verbose=False)  # their default is global


def files(folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """Write the files; go through their names and the models in them."""
    for name, model in models():
        torch.save(checkpoint(copy.deepcopy(model).half()), folder / f"{name}.pt")
        yield name, model.half().float()
    model = build()
    wrapper = YOLO(folder / "n.pt")
    wrapper.save(folder / "saved.pt")
    yield "saved", copy.deepcopy(wrapper.model).float()
    torch.save(wrapper, folder / "wrapper.pt")
    yield "wrapper", copy.deepcopy(wrapper.model).float()
    torch.save(model, folder / "bare.pt")
    yield "bare", model
    torch.save(checkpoint(None, model), folder / "ema.pt")
    yield "ema", model
    torch.save(checkpoint(build(channels=4), copy.deepcopy(model).bfloat16()), folder / "both.pt")
    yield "both", copy.deepcopy(model).bfloat16().float()
    torch.save(model.state_dict(), folder / "state.pt")
    yield "state", model
    torch.save(model.model.state_dict(), folder / "layers.pt")
    yield "layers", model
    ddp = OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items())
    torch.save({"model": ddp}, folder / "ddp.pt")
    yield "ddp", model
    torch.save(checkpoint(nn.DataParallel(model)), folder / "parallel.pt")
    yield "parallel", model
    for parameter in model.model[:10].parameters():
        parameter.requires_grad = False
    model.names = {"0": 1, "1": True, "2": "cell"}
    torch.save(checkpoint(model), folder / "frozen.pt")
    yield "frozen", model
    torch.save(checkpoint(copy.deepcopy(model).fuse(verbose=False)), folder / "fused.pt")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in files(folder):
        channels = next(model.parameters()).shape[1]
        image = torch.rand(1, channels, 64, 96, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            single = copy.deepcopy(model).eval()(image)[0]
            double = copy.deepcopy(model).double().eval()(image.double())[0]
        said = {"image": image, "float": single, "double": double}
        torch.save(said, folder / f"{name}.reference.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
