"""A plain training loop, from the first penalty to the fine-tuned narrow model."""

import copy
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lightning_prune
from lightning_prune.graph.macs import count_macs
from lightning_prune.loop.pruning import Pruning
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from tests.loop.plain import (
    CHANNEL,
    OFF,
    SLICE,
    batch,
    channel_pruning,
    masked,
    sgd,
    state_in,
    train,
    write,
)
from tests.networks import EXAMPLE, NETWORKS, Depthwise, Residual, make

TARGET = CHANNEL | {"global_prune_rate": 1.0, "mac_target": 0.5, "regularize": {"reg": 0.01}}


def violations(pruner):
    run = pruner.channel_pruner._run
    return [] if run is None else run.live.mask.violations()


def outputs(model, x):
    training = model.training
    y = model.eval()(x)
    model.train(training)
    return y.detach().clone()


def reloaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_whole_loop(tmp_path):
    model = make(Residual)
    pruner = Pruning(model, write(tmp_path, TARGET), model.forward)
    dense = count_macs(model, EXAMPLE)
    lines, seen = [], []
    x = batch(99)[0]

    def look(epoch):
        assert violations(pruner) == []
        seen.append((epoch, masked(pruner), pruner.channel_pruner.done, outputs(model, x)))

    train(model, pruner, range(8), log=lines.append, each_epoch=look)
    counts = [count for _, count, done, _ in seen if not done]
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]
    assert 0.45 < count_macs(model, EXAMPLE) / dense <= 0.5
    text = "\n".join(lines)
    assert "Group number 1:\nSource conv: stem.0\nDependencies:\n" in text
    assert "There are 4 groups of layers, with the following source convs:\n['stem.0'," in text
    assert text.count("Source conv: stem.0") == 1
    assert "(target met)" in text
    cut = next(line for line in lines if "cut to" in line)
    assert state_in(tmp_path) == TARGET | {"reach_mac_target": True, "log_str": cut}


def test_masked_equals_cut_and_the_cut_comes_one_call_after_the_target(tmp_path):
    model = make(Residual)
    pruner = Pruning(model, write(tmp_path, TARGET), model.forward)
    epoch = 0
    optimizer = sgd(model)
    while not pruner.channel_pruner._state.met:
        train(model, pruner, [epoch], optimizer)
        epoch += 1
    assert not pruner.channel_pruner.done
    x, plan = batch(99)[0], pruner.channel_pruner.plan
    before = outputs(model, x)
    pruner.prune(model, epoch - 1)
    assert not pruner.channel_pruner.done
    pruner.prune(model, epoch)
    assert pruner.channel_pruner.done
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-5, atol=1e-5)
    modules = dict(model.named_modules())
    assert {n: modules[n].out_channels for n in plan.keep} == plan.widths()
    # No zero channel is left behind.
    assert all(bool(modules[n].weight.flatten(1).any(1).all()) for n in plan.keep)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks(tmp_path, network):
    model = make(network)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    pruner.prune(model, 1)
    x = torch.randn(2, 3, 8, 8)
    before = outputs(model, x)
    pruner.prune(model, 2)
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-5, atol=1e-5)
    fresh = make(network, seed=1)
    load_pruned_state_dict(fresh, model.state_dict())
    torch.testing.assert_close(outputs(fresh, x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make_optimizer", [
    sgd,
    lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1),
])  # fmt: skip
def test_masks_hold_though_nobody_names_the_optimizer(tmp_path, make_optimizer):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model)
    optimizer = make_optimizer(model)
    train(model, pruner, [0], optimizer)
    pruner.prune(model, 1)
    for step in range(3):
        optimizer.zero_grad()
        model(batch(step)[0]).square().sum().backward()
        optimizer.step()
        assert violations(pruner) == []


def test_masks_hold_beside_an_optimizer_that_is_none_of_torchs(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, regularize={"reg": 0.01})
    pruner.prune(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert violations(pruner)
    model(batch()[0]).sum().backward()
    pruner.channel_regularize(model)
    assert violations(pruner) == []


def test_a_pruning_that_is_dropped_leaves_optimizers_alone(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    pruner.prune(model, 1)
    weight = model.b1[0].weight
    assert bool((weight.flatten(1).abs().sum(1) == 0).any())
    del pruner
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.1).step()
    assert bool((weight.flatten(1).abs().sum(1) > 0).all())


def test_a_forgotten_optimizer_is_an_error(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    optimizer = sgd(model)
    pruner.prune(model, 1)
    pruner.prune(model, 2)
    assert pruner.channel_pruner.reset_optimizer
    with pytest.raises(RuntimeError, match=r"SGD still trains .*reset_optimizer"):
        optimizer.step()
    fresh = sgd(model)
    model(batch()[0]).sum().backward()
    before = copy.deepcopy(model.state_dict())
    fresh.step()
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_optimizer_that_is_passed_is_carried_across(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    optimizer = sgd(model)
    train(model, pruner, [0, 1], optimizer)
    old = model.b1[0].weight
    momentum = optimizer.state[old]["momentum_buffer"].clone()
    keep = pruner.channel_pruner.plan.keep
    pruner.prune(model, 2, optimizer=optimizer)
    new = model.b1[0].weight
    assert new is not old
    assert torch.equal(
        optimizer.state[new]["momentum_buffer"], momentum[keep["b1.0"]][:, keep["stem.0"]]
    )
    before = new.detach().clone()
    model(batch()[0]).square().sum().backward()
    optimizer.step()
    assert not torch.equal(new, before)


def test_regularization_ends_with_the_cut_and_spares_masked_channels(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2, regularize={"reg": 0.1})
    pruner.prune(model, 1)
    removed = pruner.channel_pruner.plan.removed("b1.0")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.channel_regularize(model)
    rows = model.b1[0].weight.grad.flatten(1).abs().sum(1)
    assert float(rows[removed].sum()) == 0
    assert float(rows.sum()) > 0
    pruner.prune(model, 2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.channel_regularize(model)
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_unprune_brings_rows_back(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model)
    before = copy.deepcopy(model.state_dict())
    pruner.prune(model, 1)
    pruner.prune(model, 2)
    gone = masked(pruner)
    pruner.unprune(model, ["b1.0"])
    assert torch.equal(model.b1[1].weight, before["b1.1.weight"])
    assert 0 < masked(pruner) < gone
    assert violations(pruner) == []
    pruner.prune(model, 3)
    assert "b1.0" not in pruner.channel_pruner.plan.keep
    pruner.unprune(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for epoch in range(4, 8):
        pruner.prune(model, epoch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert state_in(tmp_path).get("reach_mac_target") is None
    with pytest.warns(UserWarning, match="unprune has no effect"):
        channel_pruning(tmp_path, model).unprune(model)


def test_slices_in_the_loop(tmp_path):
    model = make(Residual)
    pruner = Pruning(model, write(tmp_path, OFF, SLICE | {"reg": 1e-4}), model.forward)
    shares = []

    def look(epoch):
        weight = model.b1[0].weight.detach()
        shares.append(float((weight == 0).double().mean()))

    train(model, pruner, range(5), each_epoch=look)
    assert shares == [0.0, 0.25, 0.5, 0.5, 0.5]
    assert float(pruner.slice_regularize(model)) == 0  # the schedule is over
    assert state_in(tmp_path) == OFF


def test_slices_and_channels_together(tmp_path):
    model = make(Residual)
    channel = CHANNEL | {"end_epoch": 3, "block_size": 2}
    slices = SLICE | {"reg": 1e-4, "end_epoch": 2}  # at 3 only the cut
    pruner = Pruning(model, write(tmp_path, channel, slices), model.forward)
    train(model, pruner, range(3))
    x = batch(99)[0]
    before = outputs(model, x)
    zeros = int((model.b1[0].weight == 0).sum())
    pruner.prune(model, 3)
    assert pruner.channel_pruner.done
    torch.testing.assert_close(outputs(model, x), before, rtol=1e-5, atol=1e-5)
    held = int((model.b1[0].weight == 0).sum())
    assert 0 < held <= zeros
    optimizer = sgd(model)
    model(x).square().sum().backward()
    optimizer.step()
    assert int((model.b1[0].weight == 0).sum()) == held


def test_resume_in_the_masked_phase_goes_on_as_if_nothing_had_been(tmp_path):
    def start(folder):
        folder.mkdir()
        torch.manual_seed(0)
        model = make(Residual)
        both = TARGET | {"block_size": 2}
        return model, Pruning(model, write(folder, both, SLICE | {"reg": 1e-4}), model.forward)

    model, pruner = start(tmp_path / "whole")
    optimizer = train(model, pruner, range(2))
    saved = reloaded(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
         "pruner": pruner.state_dict()}
    )  # fmt: skip
    train(model, pruner, range(2, 7), optimizer)

    other, resumed = start(tmp_path / "resumed")
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["pruner"])
    optimizer = sgd(other)
    optimizer.load_state_dict(saved["optimizer"])
    train(other, resumed, range(2, 7), optimizer)
    assert resumed.channel_pruner.done
    ours, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    logs = [state_in(tmp_path / name)["log_str"] for name in ("whole", "resumed")]
    assert logs[0] == logs[1]


def test_masks_of_a_resumed_run_can_be_lifted(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model)
    before = copy.deepcopy(model.state_dict())
    pruner.prune(model, 1)
    saved = reloaded({"model": model.state_dict(), "pruner": pruner.state_dict()})
    other = make(Residual, seed=1)
    resumed = channel_pruning(tmp_path, other)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["pruner"])
    resumed.unprune(other)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_restart_after_the_cut(tmp_path):
    model = make(Depthwise)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    for epoch in range(3):
        pruner.prune(model, epoch)
    saved = reloaded({"model": model.state_dict(), "pruner": pruner.state_dict()})
    x = torch.randn(2, 3, 8, 8)
    for with_state in (True, False):
        other = make(Depthwise, seed=1)
        restarted = Pruning(other, tmp_path, other.forward)
        message = "this model was cut .* load_pruned_state_dict"
        with pytest.raises(RuntimeError, match=message):
            restarted.prune(other, 3)
        with pytest.raises(RuntimeError, match=message):
            restarted.channel_regularize(other)
        try:  # the seed's lines
            other.load_state_dict(saved["model"])
        except RuntimeError:
            missing, unexpected = load_pruned_state_dict(other, saved["model"])
            assert missing == unexpected == []
        if with_state:
            restarted.load_state_dict(saved["pruner"])
        restarted.prune(other, 3)
        restarted.channel_regularize(other)
        assert not restarted.channel_pruner.reset_optimizer
        assert torch.equal(outputs(other, x), outputs(model, x))


def test_the_state_wins_over_a_file_that_was_put_back(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    masked_state = None
    for epoch in range(3):
        pruner.prune(model, epoch)
        masked_state = masked_state or (reloaded(pruner.state_dict()) if epoch == 1 else None)
    saved = reloaded({"model": model.state_dict(), "pruner": pruner.state_dict()})
    line = state_in(tmp_path)["log_str"]
    other = make(Residual)
    restarted = channel_pruning(tmp_path, other, end_epoch=2)  # writes a fresh file
    load_pruned_state_dict(other, saved["model"])
    restarted.load_state_dict(saved["pruner"])
    restarted.prune(other, 3)
    assert state_in(tmp_path)["log_str"] == line
    third = Pruning(make(Residual), tmp_path, None)
    with pytest.raises(RuntimeError, match="set it to false to continue"):
        third.load_state_dict(masked_state)


def test_state_is_plain_data(tmp_path):
    model = make(Residual)
    pruner = Pruning(model, write(tmp_path, TARGET | {"block_size": 2}, SLICE), model.forward)
    for epoch in range(3):
        pruner.prune(model, epoch)
    state = reloaded(pruner.state_dict())
    assert set(state) == {"channel", "slice"}
    json.dumps(state["channel"]["step_epoch"])


def test_calls_that_skip_scheduled_epochs_catch_up(tmp_path):
    model, other = make(Residual), make(Residual)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    every, some = channel_pruning(tmp_path / "a", model), channel_pruning(tmp_path / "b", other)
    for epoch in range(4):
        every.prune(model, epoch)
    some.prune(other, 3)
    assert masked(some) == masked(every) > 0


def test_models_and_copies(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model)
    with pytest.raises(ValueError, match="not the Residual that Pruning was made for"):
        pruner.prune(copy.deepcopy(model), 0)
    compiled = torch.compile(model)
    pruner.prune(compiled, 1)
    assert masked(pruner) > 0


def test_log_takes_a_logger_or_a_function(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model)
    lines = []

    class Keeper(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger = logging.Logger("mine")
    logger.addHandler(Keeper())
    pruner.prune(model, 1, log=logger)
    assert any("epoch 1: ratio 0.125" in line for line in lines)
    with pytest.raises(ValueError, match="log=3: pass a logger"):
        pruner.prune(model, 2, log=3)


def test_loss_scaling(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, regularize={"reg": 0.1})
    model(batch()[0]).sum().backward()
    plain = [p.grad.clone() for p in model.parameters()]
    pruner.channel_regularize(model)
    added = [p.grad - g for p, g in zip(model.parameters(), plain, strict=True)]
    for parameter, gradient in zip(model.parameters(), plain, strict=True):
        parameter.grad = 1024 * gradient
    pruner.channel_regularize(model, scale=1024.0)
    for parameter, gradient, more in zip(model.parameters(), plain, added, strict=True):
        torch.testing.assert_close(parameter.grad, 1024 * (gradient + more), rtol=1e-4, atol=1e-2)


PROGRAM = """
import sys
for name in ("lightning", "pytorch_lightning", "lightning_fabric", "hydra", "omegaconf"):
    sys.modules[name] = None
import torch
from torch import nn
from lightning_prune import Pruning, load_pruned_state_dict
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3),
                      nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
pruner = Pruning(model, sys.argv[1], model.forward)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(4):
    pruner.prune(model, epoch, log=print)
    if pruner.channel_pruner.reset_optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pruner.channel_pruner.reset_optimizer = False
    loss = model(torch.randn(4, 1, 6, 6)).square().mean() + pruner.slice_regularize(model)
    optimizer.zero_grad()
    loss.backward()
    pruner.channel_regularize(model)
    optimizer.step()
assert model[0].out_channels < 8
"""


def test_it_knows_no_lightning_and_no_hydra(tmp_path):
    write(tmp_path, TARGET | {"input_shape": [1, 1, 6, 6], "end_epoch": 3}, SLICE)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(lightning_prune.__file__).parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cut to" in done.stdout


def test_a_distributed_wrapper_must_be_made_anew(tmp_path):
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = make(Residual)
        wrapped = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(ValueError, match=r"pass ddp_model\.module"):
            Pruning(wrapped, write(tmp_path, CHANNEL))
        pruner = channel_pruning(tmp_path, model, end_epoch=2)
        pruner.prune(wrapped, 1)
        with pytest.warns(UserWarning, match="wrap the model in DistributedDataParallel again"):
            pruner.prune(wrapped, 2)
        assert state_in(tmp_path)["reach_mac_target"] is True
    finally:
        dist.destroy_process_group()


def test_the_model_may_change_its_precision_on_the_way(tmp_path):
    model = make(Residual)
    pruner = channel_pruning(tmp_path, model, end_epoch=2)
    pruner.prune(model, 1)
    model.double()
    pruner.prune(model, 2)
    assert pruner.channel_pruner.done
    assert {p.dtype for p in model.parameters()} == {torch.float64}
