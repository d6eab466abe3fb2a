"""Networks described as lists of layers, as the golden vectors describe them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class SpecNet(nn.Module):
    """A network of named layers; ``spec["nodes"]`` says what each reads."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.nodes, self.result = spec["nodes"], spec["output"]
        for node in self.nodes:
            made = layer(node["op"], node["args"])
            if made is not None:
                self.add_module(node["name"], made)

    def forward(self, x: Tensor) -> Tensor:
        values = {"x": x}
        for node in self.nodes:
            inputs = [values[name] for name in node["in"]]
            if node["op"] == "add":
                values[node["name"]] = inputs[0] + inputs[1]
            elif node["op"] == "cat":
                values[node["name"]] = torch.cat(inputs, 1)
            elif node["op"] == "gap":
                values[node["name"]] = inputs[0].mean((2, 3))
            elif node["op"] == "relu":
                values[node["name"]] = torch.relu(inputs[0])
            else:
                values[node["name"]] = self.get_submodule(node["name"])(inputs[0])
        return values[self.result]


def layer(kind: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Return the layer of a node, or None where it is a plain function."""
    if kind == "conv2d":
        return nn.Conv2d(
            options["in"],
            options["out"],
            options["k"],
            padding=options["padding"],
            groups=options.get("groups", 1),
            bias=options["bias"],
        )
    if kind == "batchnorm2d":
        return nn.BatchNorm2d(options["ch"])
    return nn.Linear(options["in"], options["out"]) if kind == "linear" else None
