import pytest
import torch
from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.model_inputs import model_inputs


class One(nn.Module):
    def forward(self, x):
        return x


class Two(nn.Module):
    def forward(self, a, b):
        return a, b


class Optional(nn.Module):
    def forward(self, image, mask=None):
        return image, mask


class Whole(nn.Module):
    def forward(self, batch):
        return batch["image"]


class Open(nn.Module):
    def forward(self, **inputs):
        return inputs


@pytest.mark.parametrize(
    ("model", "batch", "given"),
    [
        (One(), "x", "x"),
        (One(), ["x", "label"], "x"),
        (One(), {"x": "x", "label": 1}, "x"),
        (One(), [{"x": "x", "noise": 0}, "label"], "x"),
        (Two(), ["a", "b"], ("a", "b")),  # it takes the labels too
        (Two(), [("a", "b"), "label"], ("a", "b")),
        (Two(), {"b": "b", "a": "a", "label": 1}, ("a", "b")),
        (Two(), [{"b": "b", "a": "a"}, "label"], ("a", "b")),
        (Optional(), ["image", "label"], ("image", None)),
        (Optional(), {"image": "image", "mask": "mask", "label": 1}, ("image", "mask")),
        (Whole(), {"image": "image", "label": 1}, "image"),
        (Open(), {"image": "image", "mask": "mask"}, {"image": "image", "mask": "mask"}),
    ],
)
def test_the_forward_pass_gets_what_it_names(model, batch, given):
    assert call(model, model_inputs(model, batch)) == given


def test_a_key_in_front_of_a_batch_is_no_input():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    assert model_inputs(nn.Linear(3, 1), ("mouse", (x, y))) is x
    assert model_inputs(nn.Linear(3, 1), ["mouse", x, y]) is x
    assert model_inputs(nn.Linear(3, 1), ("mouse", {"input": x, "y": y})) == {"input": x}
    assert model_inputs(nn.Linear(3, 1), ["one"] * 5000) == "one"
