import pytest
import torch
from torch import Tensor, nn

from lightning_prune.engine.dense_twin import DenseTwin
from lightning_prune.engine.outer_calls import Call


class Auxiliary(nn.Module):
    """Gives a second output in training, as some classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.body(x)
        return (self.first(x), self.second(x)) if self.training else self.first(x)


def test_the_same_form_as_in_training_with_layers_in_eval_mode():
    torch.manual_seed(0)
    network, x = Auxiliary(), torch.randn(5, 3)
    outputs = network.train()(x)
    twin = DenseTwin(network)
    statistics = network.body[1].running_mean.clone()
    found = twin(Call("", (x,), {}, outputs))
    body = network.body.eval()(x)
    assert torch.equal(found[0], network.first(body))
    assert torch.equal(found[1], network.second(body))
    assert torch.equal(statistics, network.body[1].running_mean)
    assert not any(p.requires_grad for p in network.parameters())
    assert not found[0].requires_grad


def test_another_form_is_refused():
    network, x = Auxiliary(), torch.randn(5, 3)
    with pytest.raises(ValueError, match="gives 3 tensors of 1, 1, 1 dimensions in training"):
        DenseTwin(network)(Call("", (x,), {}, [torch.zeros(1)] * 3))
