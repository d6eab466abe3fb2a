import pytest
import torch
from torch import Tensor, nn

from lightning_prune.engine.outer_calls import main_call, outer_calls


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)
        self.loss = nn.MSELoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def test_only_the_outermost_call_of_a_network_counts():
    model, x = Model(), torch.zeros(4, 3)
    with outer_calls(model) as calls:
        out = model(x)
        model.loss(out, out)
    assert [call.layer for call in calls] == [""]
    found = main_call(model, calls)
    assert found.inputs == (x,)
    assert found.outputs is out
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_arguments_by_name_are_kept():
    model, x = Model(), torch.zeros(4, 3)
    with outer_calls(model) as calls:
        model(x=x)
    assert calls[0].named == {"x": x}


def test_one_layer_alone():
    model = Model()
    with outer_calls(model, "encoder") as calls:
        model(torch.zeros(4, 3))
        model(torch.zeros(2, 3))
    assert [(call.layer, len(call.outputs)) for call in calls] == [("encoder", 4), ("encoder", 2)]


def test_networks_one_after_the_other_are_refused():
    model = Model()
    with outer_calls(model) as calls:
        model.head.requires_grad_(True)
        big = nn.Linear(8, 200)
        model.add_module("big", big)
    with outer_calls(model) as calls:
        model.big(model.encoder(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="calls big with what other layers of it computed"):
        main_call(model, calls)


def test_no_network_is_refused():
    model = Model()
    with outer_calls(model) as calls:
        model.loss(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="calls no module that has parameters"):
        main_call(model, calls)


def test_nothing_within_a_compiled_module_is_watched():
    model = Model()
    model.encoder = torch.compile(model.encoder, backend="eager")
    with outer_calls(model) as calls:
        model.encoder(torch.zeros(4, 3))
        assert not any(part._forward_hooks for part in model.encoder._orig_mod.modules())
    assert [call.layer for call in calls] == ["encoder"]
