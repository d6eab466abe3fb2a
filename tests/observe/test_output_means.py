import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.observe.output_means import collect_outputs, merge_outputs, source_outputs
from tests.networks import EXAMPLE, Chain, Residual, make
from tests.observe.models import InPlace


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def spatial_square(output: torch.Tensor) -> torch.Tensor:
    return output.square().flatten(2).mean(2)


def watched(net: nn.Module, names: list[str]):
    return source_outputs(net, trace_groups(net, EXAMPLE), names, EXAMPLE)


def forward(net: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return net(batch)


@torch.no_grad()
def test_the_mean_is_that_of_all_images_after_norm_and_activation():
    net, inputs = make(Residual), images(7)
    outputs = watched(net, ["a1.0"])
    found = collect_outputs(net, inputs.split([3, 3, 1]), outputs, spatial_square, forward)
    net.eval()
    maps = []
    handle = net.a1.register_forward_hook(lambda _m, _i, out: maps.append(out.numpy()))
    net(inputs)
    handle.remove()
    expected = (np.concatenate(maps).astype(np.float64) ** 2).mean((0, 2, 3))
    assert found["a1.0"].images == 7
    np.testing.assert_allclose(found["a1.0"].value.numpy(), expected, atol=1e-6)


def test_parts_of_several_processes_merge_to_the_mean_of_all():
    net, inputs = make(Residual), images(9)
    outputs = watched(net, ["a1.0", "stem.0"])
    whole = collect_outputs(net, [inputs], outputs, spatial_square, forward)
    parts = [
        collect_outputs(net, batches, outputs, spatial_square, forward)
        for batches in ([inputs[:4], inputs[4:5]], [], [inputs[5:]])
    ]
    merged = merge_outputs(parts)
    assert merged.keys() == whole.keys()
    for name, mean in whole.items():
        assert merged[name].images == mean.images == 9
        torch.testing.assert_close(merged[name].value, mean.value)


@torch.no_grad()
def test_activations_in_place_and_functions_are_applied_to_a_copy():
    net, inputs = make(InPlace), images(4)
    outputs = {"first": layer_outputs(net, EXAMPLE)["first"]}
    assert outputs["first"].activation is not None
    before = net(inputs)
    found = collect_outputs(net, [inputs], outputs, spatial_square, forward)["first"].value
    expected = spatial_square(net.first(inputs).clamp(min=0)).double().mean(0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(net(inputs), before)
    assert not any(module._forward_hooks for module in net.modules())


def test_model_and_random_state_are_as_before_and_a_layer_that_did_not_run_is_named():
    net = make(Chain).train()
    outputs = watched(net, ["conv1"])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    collect_outputs(net, [images(2)], outputs, spatial_square, forward)
    assert torch.equal(torch.rand(1), expected)
    assert net.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="layer 'conv1' did not run in the forward pass"):
        collect_outputs(net, [images(2)], outputs, spatial_square, lambda _m, batch: batch)
