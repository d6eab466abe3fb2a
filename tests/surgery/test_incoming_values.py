import pytest
import torch
from torch import nn

from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.incoming_values import check_values
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


BAD = {
    "complex": ("0.weight", torch.zeros(8, 3, 3, 3, dtype=torch.complex64), "is complex64"),
    "whole": ("0.weight", torch.ones(8, 3, 3, 3, dtype=torch.int8), "whole numbers"),
    "complex statistics": ("1.running_mean", torch.zeros(8) * 1j, "is complex64"),
    "negative": ("1.running_var", torch.tensor([1.0] * 7 + [-1e-9]), "variance below zero"),
    "NaN count": ("1.num_batches_tracked", torch.tensor(float("nan")), "no count of batches"),
    "negative count": ("1.num_batches_tracked", torch.tensor(-1), "no count of batches"),
    "huge count": ("1.num_batches_tracked", torch.tensor(1e300).double(), "no count of batches"),
    "sparse": ("0.bias", torch.ones(8).to_sparse(), "is sparse_coo"),
}


@pytest.mark.parametrize(("name", "value", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("how", ["tracked", "untracked"])
@pytest.mark.filterwarnings("ignore:Casting complex:UserWarning")
def test_they_are_refused_with_the_layer_and_nothing_is_loaded(name, value, message, how):
    model, state = net(), dict(net(1).state_dict()) | {name: value}
    if how == "tracked":
        track_architecture(model)
        load = model.load_state_dict
    else:
        load = lambda given: load_pruned_state_dict(model, given)  # noqa: E731
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"{name} .*{message}"):
        load(state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_real_files_hold_is_not_refused():
    state = dict(net(1).state_dict())
    state["1.running_var"] = torch.full((8,), float("nan"))
    state["1.num_batches_tracked"] = torch.tensor(3.0)  # an average of models
    check_values(net(), state)
    check_values(net(), {name: value.half() for name, value in state.items()})
    check_values(net(), {name: value.to("meta") for name, value in state.items()})
    check_values(net(), {"other": torch.ones(1) * 1j, "0.bias": "text"})
    with pytest.raises(ValueError, match=r"net\.1\.running_var is a variance below zero"):
        check_values(net(), state | {"1.running_var": -torch.ones(8)}, "net.")


def test_a_buffer_of_whole_numbers_takes_no_fractions():
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.tensor([1, 2]))

    check_values(Counter(), {"steps": torch.tensor([3.0, 4.0])})
    with pytest.raises(ValueError, match="steps holds fractions"):
        check_values(Counter(), {"steps": torch.tensor([3.0, 4.5])})
    with pytest.raises(ValueError, match="steps holds fractions"):
        check_values(Counter(), {"steps": torch.tensor([3.0, float("nan")])})
