"""What the classifier asks of timm, with one small network: for tests where timm is absent."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ["smallnet_a", "smallnet_b", "fixednet"]


class SmallNet(nn.Module):
    """Two convolutions, and a head on the mean; of fixed images a position embedding too."""

    def __init__(self, num_classes: int, in_chans: int, img_size: int | None, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.place = None if img_size is None else nn.Parameter(torch.ones(1, width, 1, 1))
        self.body = nn.Conv2d(width, 16, 3, padding=1)
        self.head = nn.Linear(16, num_classes)

    def no_weight_decay(self) -> set[str]:
        return {"place"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x if self.place is None else x * self.place
        return self.head(self.body(x).relu().mean((2, 3)))


def create_model(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    if pretrained:
        raise RuntimeError("no weights here")
    size = options.pop("img_size", 32 if name == "fixednet" else None)
    return SmallNet(img_size=size, **{"width": 8, **options})


def get_pretrained_cfg(name: str) -> Any:
    return SimpleNamespace(fixed_input_size=name == "fixednet", classifier="head", num_classes=1000)


def resolve_model_data_config(network: nn.Module) -> dict[str, Any]:
    return {
        "input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": 0.8,
        "crop_mode": "center", "mean": (0.2, 0.4, 0.6), "std": (0.5, 0.25, 0.2),
    }  # fmt: skip


SMALL_TIMM = SimpleNamespace(
    __version__="0.0",
    list_models=lambda: NAMES,
    list_pretrained=lambda pattern: ["smallnet_a.own"] if "smallnet_a" in pattern else [],
    create_model=create_model,
    models=SimpleNamespace(get_pretrained_cfg=get_pretrained_cfg),
    data=SimpleNamespace(resolve_model_data_config=resolve_model_data_config),
)
