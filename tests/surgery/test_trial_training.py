import pytest
import torch
from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.trial_training import TrialTraining

EXAMPLE = torch.rand(1, 3)
STEP = "training_step fails once its channels are cut (ValueError: narrow): something that only "


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_what_only_the_cut_copy_cannot_do_is_a_fault():
    dense, cut = nn.Linear(3, 4), nn.Linear(3, 2)

    def step(net: nn.Module) -> None:
        if net.out_features < 4:
            raise ValueError("narrow")

    training = TrialTraining(dense, EXAMPLE, call, step)
    assert training.fault(copy_module(dense)) is None
    for _ in range(2):
        assert training.fault(cut).startswith(STEP)


def test_what_the_dense_copy_cannot_do_either_is_tried_once():
    asked = []

    def step(net: nn.Module) -> None:
        asked.append(net)
        raise ValueError("no labels")

    dense = nn.Linear(3, 4)
    training = TrialTraining(dense, EXAMPLE, call, step)
    net = copy_module(dense)
    assert training.fault(net) is None
    assert training.fault(net) is None
    assert len(asked) == 2  # the cut copy, then a copy of the dense one
    assert asked[0] is net
    assert asked[1] is not dense


def test_one_sample_is_doubled_for_batch_norms():
    dense = normed()
    cut = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        dense(EXAMPLE)
    found = TrialTraining(dense, EXAMPLE, call, None).fault(cut)
    assert found.startswith("the forward pass in training mode fails once its channels are cut")
    assert TrialTraining(dense, EXAMPLE, call, None).fault(copy_module(dense)) is None


def test_out_of_memory_is_no_fault():
    def step(_: nn.Module) -> None:
        raise torch.OutOfMemoryError

    dense = nn.Linear(3, 4)
    with pytest.raises(torch.OutOfMemoryError):
        TrialTraining(dense, EXAMPLE, call, step).fault(copy_module(dense))
