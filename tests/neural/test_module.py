import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import safetensors.torch
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from lightning_prune.cli.build import build
from lightning_prune.cli.training import fill_from_data
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loading import load_pruned
from lightning_prune.neural.data.simulated_cells import SimulatedCellsDataModule
from lightning_prune.neural.functional.poisson_loss import poisson_loss
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.surgery.cut import cut_channels
from tests.neural.data.recordings import arrays, write

SMALL: dict[str, Any] = {
    "frames": 16,
    "frame_shape": [15, 15],
    "convnet": {"channels": [4, 6, 8]},
    "modulator": {"behavior_dim": 5, "feature_dim": 8, "hidden_dim": 8, "beh_emb_dim": 4},
}
# A Trainer of so few batches.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*cells had no spikes in the data"
)


def module(**options: Any) -> NeuralResponseModule:
    torch.manual_seed(0)
    return NeuralResponseModule(**{"cells": [4, 2], **SMALL, **options})


def batch(size: int = 6) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "stimulus": torch.randn(size, 1, 16, 15, 15, generator=generator),
        "behavior": torch.randn(size, 5, generator=generator),
        "session": torch.arange(size) % 2,
    }
    spikes = torch.poisson(torch.ones(size, 4), generator=generator)
    valid = torch.ones(size, 4).bool()
    valid[1::2, 2:] = False
    return inputs, {"spikes": spikes.where(valid, 0), "valid": valid}


def recording(**options: Any) -> SimulatedCellsDataModule:
    sizes: dict[str, Any] = {
        "cells": [4, 2], "pixels": 15, "trials": 5, "repeated_trials": 1, "repeats": 3,
        "trial_seconds": 0.6, "photos": 2, "batch_size": 24, "stride": 4,
    }  # fmt: skip
    return SimulatedCellsDataModule(**{**sizes, **options})


def recorded(**options: Any) -> NeuralResponseModule:
    return module(frames=25, modulator={**SMALL["modulator"], "behavior_dim": 42}, **options)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0,
        "default_root_dir": folder, "max_epochs": 1,
    }  # fmt: skip
    return pl.Trainer(**quiet | options)


# --- the network in the module -------------------------------------------------------------------


def test_all_sessions_or_each_samples_own():
    model, (inputs, _) = module().eval(), batch()
    every = model(inputs["stimulus"], inputs["behavior"])
    assert [tuple(rate.shape) for rate in every] == [(6, 4), (6, 2)]
    own = model(**inputs)
    assert torch.equal(own[0::2], every[0][0::2])
    assert torch.equal(own[1::2, :2], every[1][1::2])
    assert not own[1::2, 2:].any()


def test_the_loss_is_that_of_the_sessions_joined():
    model, (inputs, targets) = module().eval(), batch()
    model.log = lambda *_, **__: None
    loss = model.training_step((inputs, targets), 0)
    rates = model(inputs["stimulus"], inputs["behavior"])
    first, second = (poisson_loss(rates[s][s::2], targets["spikes"][s::2, : 4 - 2 * s])
                     for s in range(2))  # fmt: skip
    assert loss.item() == pytest.approx((12 * first + 6 * second).item() / 18, rel=1e-6)


def test_a_session_without_a_sample_gets_zero_gradients():
    model, (inputs, targets) = module(), batch()
    model.log = lambda *_, **__: None
    inputs["session"] = torch.zeros_like(inputs["session"])
    model.training_step((inputs, targets), 0).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    assert not grads["network.readouts.1.features.weight"].any()
    assert grads["network.readouts.0.features.weight"].any()


def test_rates_are_predicted_as_spikes_per_frame():
    model, (inputs, targets) = module().eval(), batch()
    expected = model(**inputs).exp()
    assert torch.equal(model.predict_step((inputs, targets), 0), expected)


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": None}, "cells is missing: pass the number of cells of each session"),
        ({"cells": [4, 0]}, r"cells=\[4, 0\]: pass the number of cells"),
        ({"frames": 0}, "frames=0: pass an integer in"),
        ({"frame_shape": [15]}, r"frame_shape=\[15\]: pass height and width"),
        ({"lr": 0.0}, "lr=0.0: pass a number above 0, a learning rate"),
        ({"core_lr_scale": -1.0}, "core_lr_scale=-1.0"),
        ({"schedule": "steps"}, "schedule='steps': pass 'linear', 'cosine' or 'one_cycle'"),
        ({"max_std": [1.0]}, r"max_std=\[1.0\]: pass \[first, last\]"),
        ({"convnet": {"chanels": [4]}}, "chanels"),
        ({"modulator": {"feature_dim": 7}}, "feature_dim=7 is not the last of convnet.channels"),
        ({"convnet": {"use_weight_norm": True}}, "weight norm is for standard"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_all_settings_are_kept_as_plain_values():
    hparams = module().hparams
    assert hparams["convnet"]["channels"] == [4, 6, 8]
    assert hparams["convnet"]["blocks"][1]["pool"]["reduction"] == 4
    assert hparams["modulator"]["use_layer_norm"] is True
    again = NeuralResponseModule(**hparams)
    assert again.hparams == hparams


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cells": [4]},
            r"the data have cells=\[4,2\], .* pass model.cells=\[4,2\] .*, cells=\[4, 2\] in",
        ),
        ({"frames": 20}, "frames=25"),
        ({"frame_shape": [15, 17]}, r"pass model.frame_shape=\[15,15\] on the command line"),
        (
            {"modulator": {**SMALL["modulator"], "behavior_dim": 5}},
            "pass model.behavior_dim=42 on the command line",
        ),
    ],
)
def test_other_data_than_the_network_was_built_for(options: dict, message: str, tmp_path: Path):
    model = module(
        **{"frames": 25, "modulator": {**SMALL["modulator"], "behavior_dim": 42}, **options}
    )
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(model, datamodule=recording())


def test_the_width_of_the_behavior_is_one_number():
    settings = {name: value for name, value in SMALL["modulator"].items() if name != "behavior_dim"}
    model = module(behavior_dim=3, modulator=settings)
    assert model.network.modulator.beh_emb.in_features == 3
    assert model.hparams["behavior_dim"] == model.hparams["modulator"]["behavior_dim"] == 3
    assert NeuralResponseModule(**model.hparams).hparams == model.hparams
    both = module(behavior_dim=5, modulator={**settings, "behavior_dim": None})
    assert both.example_input_array["behavior"].shape == (1, 5)
    assert module().hparams["behavior_dim"] == 5  # what the modulator says
    with pytest.raises(ValueError, match=r"behavior_dim=3 and modulator.behavior_dim=5 are two"):
        module(behavior_dim=3)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_documented_command_takes_the_width_from_the_files(columns: int, tmp_path: Path):
    content = arrays(0, cells=5, trials=(30,) * 6, side=(33, 33), valid=np.ones(180, bool))
    content["behavior"] = np.ones((180, columns), np.float32)
    path = write(tmp_path / "a.npz", content)
    words = ["data=neural_sessions", f"data.files=[{path}]", "monitor=val/bps"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("train", [*words, "model=learned_res_optimized_gru_small", "output_dir=x"])
    data = build(cfg.data, "data")
    fill_from_data(cfg, data)
    model = build(cfg.model, "model")
    assert model.network.modulator.beh_emb.in_features == columns
    model(**next(iter(data.val_dataloader()))[0])


# --- the optimizer -------------------------------------------------------------------------------


def test_core_and_readouts_have_groups_of_their_own():
    model = module(lr=0.01, core_lr_scale=0.5, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)].removeprefix("network."): (group["lr"], group["weight_decay"])
        for group in model.make_optimizer().param_groups
        for parameter in group["params"]
    }
    assert len(found) == len(names)
    assert found["frontend.conv.weight"] == (0.005, 0.1)
    assert found["convnet.blocks.0.main.norm.gamma"] == (0.005, 0.0)
    assert found["modulator.gru.h0"] == (0.005, 0.0)
    assert found["modulator.gru.cell.conv_h.weight"] == (0.005, 0.1)
    assert found["readouts.0.features.weight"] == (0.01, 0.1)
    for name in ("mean", "std", "theta", "bias"):
        assert found[f"readouts.1.{name}"] == (0.01, 0.0)


def test_what_is_never_trained_is_left_out():
    model = module(
        convnet={"channels": [4, 6, 8], "norm_affine": False, "zero_init_residual": False},
        modulator={**SMALL["modulator"], "hidden_dim": 12, "use_residual": True},
    )
    trained = [p for group in model.make_optimizer().param_groups for p in group["params"]]
    frozen = [name for name, p in model.named_parameters() if not any(p is t for t in trained)]
    assert {name.rpartition(".")[2] for name in frozen} == {"gamma", "residual"}


# --- in a Trainer --------------------------------------------------------------------------------


def test_readouts_start_at_the_mean_rates_once(tmp_path: Path):
    model, data = recorded(lr=1e-9), recording()
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=data)
    for readout, counts in zip(model.network.readouts, data.mean_counts, strict=True):
        torch.testing.assert_close(readout.bias.detach().exp(), counts, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.network.readouts[0].bias.fill_(0.5)
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=data)
    torch.testing.assert_close(model.network.readouts[0].bias.detach(), torch.full((4,), 0.5))


def test_the_masks_narrow_with_their_limit(tmp_path: Path):
    model = recorded(max_std=[3.0, 1.0], max_std_epochs=2)
    seen: list[float] = []

    class Look(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            seen.append(max(r.std.max().item() for r in pl_module.network.readouts))

    options = {"limit_train_batches": 1, "limit_val_batches": 0, "max_epochs": 4}
    trainer(tmp_path, callbacks=[Look()], **options).fit(model, datamodule=recording())
    assert seen == pytest.approx([3.0, 2.0, 1.0, 1.0], abs=1e-6)


def test_training_brings_information_and_a_test_writes_it(tmp_path: Path):
    model, data = recorded(lr=0.01), recording(stride=1)
    run = trainer(tmp_path, max_epochs=4)
    run.fit(model, datamodule=data)
    start = model.predict_step(next(iter(data.test_dataloader())), 0)
    metrics = run.test(model, datamodule=data, verbose=False)[0]
    assert metrics["test/attained"] == pytest.approx(
        metrics["test/bps"] / metrics["test/attainable_bps"], rel=1e-5
    )
    assert metrics["test/attainable_bps"] == pytest.approx(
        data.attainable_bits_per_spike("test"), rel=1e-5
    )
    assert {"test/ccnorm", "test/bps/session_0", "test/bps/session_1"} <= metrics.keys()
    dense = json.loads((tmp_path / "bits_per_spike_dense.json").read_text())
    assert [len(cells) for cells in dense["bits_per_spike"]] == [4, 2]
    assert start.shape == (24, 4)

    groups = trace_groups(model, model.example_input_array)
    hidden = "network.modulator.gru.cell.conv_x"
    cut_channels(model, groups, PruningPlan({hidden: torch.arange(4)}, {hidden: 8}))
    run.test(model, datamodule=data, verbose=False)
    pruned = json.loads((tmp_path / "bits_per_spike_pruned.json").read_text())
    paired = json.loads((tmp_path / "bits_per_spike_paired.json").read_text())
    before, after = (
        [value for cells in content["bits_per_spike"] for value in cells]
        for content in (dense, pruned)
    )
    both = [b - a for a, b in zip(before, after, strict=True) if None not in (a, b)]
    assert paired["mean_difference"] == pytest.approx(sum(both) / len(both), abs=1e-6)
    assert paired["cells_that_lost"] == sum(value < 0 for value in both)
    low, high = paired["interval_95"]
    assert low <= paired["mean_difference"] <= high


def test_a_cut_checkpoint_loads(tmp_path: Path):
    model = recorded()
    groups = trace_groups(model, model.example_input_array)
    keep = {name: torch.arange((group.channels + 1) // 2) for name, group in groups.items()}
    plan = PruningPlan(keep, {name: group.channels for name, group in groups.items()})
    run = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, datamodule=recording())
    cut_channels(model, groups, plan)
    run.save_checkpoint(tmp_path / "cut.ckpt")
    example = model.example_input_array
    for load in (NeuralResponseModule.load_from_checkpoint, None):
        path = tmp_path / "cut.ckpt"
        again = load_pruned(NeuralResponseModule, path) if load is None else load(path)
        for ours, theirs in zip(model.eval()(**example), again.eval()(**example), strict=True):
            assert torch.equal(ours, theirs)


def test_a_run_starts_from_weights(tmp_path: Path):
    model = module(lr=0.01)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.pt", "a.ckpt"):
        torch.manual_seed(9)
        again = NeuralResponseModule(cells=[4, 2], **SMALL, weights=str(tmp_path / name))
        assert again.pretrained
        assert "weights" not in again.hparams
        for own, theirs in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.equal(own, theirs)
    assert not model.pretrained


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save(module(cells=[4, 3]).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"are of another network .*readouts\.1"):
        module(weights=str(tmp_path / "a.pt"))
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        module(weights=str(tmp_path / "b.pt"))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        module(weights=str(tmp_path / "c.ckpt"))


# --- what selection by separability asks ---------------------------------------------------------


def test_windows_are_labelled_by_their_stimulus():
    inputs, targets = batch()
    samples = module().object_positions(
        (inputs, {**targets, "label": torch.tensor([1, -1, 0, 1, -1, 0])})
    )
    assert samples.image.tolist() == [0, 2, 3, 5]
    assert samples.label.tolist() == [1, 0, 1, 0]
    assert samples.correct.all()
    assert samples.x is None


def test_data_without_labels_say_what_is_missing():
    with pytest.raises(TypeError, match=r"no stimulus classes .* labels_<name>"):
        module().object_positions(batch())


def test_distillation_is_the_poisson_loss_against_the_rates_of_the_dense_network():
    torch.manual_seed(0)
    module = NeuralResponseModule(cells=[2, 3])
    given = [torch.randn(4, 2, requires_grad=True), torch.randn(4, 3, requires_grad=True)]
    dense = [torch.randn(4, 2), torch.randn(4, 3)]
    expected = torch.stack(
        [
            (y.exp() - t.exp() * y) - (t.exp() - t.exp() * t)
            for ys, ts in zip(given, dense, strict=True)
            for y, t in zip(ys.flatten(), ts.flatten(), strict=True)
        ]
    ).mean()
    found = module.distillation_loss(given, dense)
    assert torch.allclose(found, expected)
    (gradient,) = torch.autograd.grad(found, given[0])
    assert torch.allclose(gradient, (given[0].exp() - dense[0].exp()) / 20)
    assert module.distillation_loss(dense, dense).item() == 0
