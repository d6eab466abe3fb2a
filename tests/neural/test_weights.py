"""New readouts on a pruned core that stays as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_prune import recipes
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loading import load_pruned
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.neural.weights import core_parts
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.surgery.architecture import RECORD, is_cut
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.scramble import scramble
from tests.neural.test_module import module, recorded, recording, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*cells had no spikes in the data",
    "ignore:.*in eval mode at the start of training",  # which is what is wanted
    "ignore:.*but have no `val_dataloader`",
    "ignore:The dirpath has changed from",
)
NEW = {"cells": [5], "freeze": "core"}


def halved(folder: Path, **options: Any) -> tuple[NeuralResponseModule, Path]:
    """Return a module with half of its channels cut, and the file of its scrambled weights."""
    model = recorded(**options)
    scramble(model)
    groups = trace_groups(model, model.example_input_array)
    keep = {name: torch.arange((group.channels + 1) // 2) for name, group in groups.items()}
    cut_channels(model, groups, PruningPlan(keep, {n: g.channels for n, g in groups.items()}))
    torch.save({"state_dict": model.state_dict()}, folder / "cut.ckpt")
    return model.eval(), folder / "cut.ckpt"


def features(model: NeuralResponseModule) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    inputs = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in model.example_input_array.items()
    }
    with torch.no_grad():
        return model.network.core(**inputs)


def named(model: NeuralResponseModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("norm", ["rms", "batch"])
def test_only_the_readouts_are_trained(norm: str, tmp_path: Path):
    # Scrambled statistics of batch norms would be others after one batch in training mode.
    convnet = {"channels": [4, 6, 8], "norm_type": norm}
    source, path = halved(tmp_path, convnet=convnet)
    model = recorded(**NEW, convnet=convnet, weights=str(path), lr=0.05)
    assert not model.pretrained
    assert torch.equal(features(model), features(source))
    before = named(model)
    data = recording(cells=[5], seed=7)
    run = trainer(tmp_path, max_epochs=2, callbacks=[ExponentialMovingAverage(0.9, 10.0)])
    run.fit(model, datamodule=data)
    after = named(model)
    assert torch.equal(features(model), features(source))
    core = [name for name in before if name.startswith(("network.f", "network.c", "network.m"))]
    assert core
    assert all(torch.equal(before[name], after[name]) for name in core)
    readouts = [name for name in before if name.startswith("network.readouts.")]
    assert all(not torch.equal(before[name], after[name]) for name in readouts)
    assert before["network.readouts.0.features.weight"].shape == (5, 4, 1, 1)
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in model.network.readouts.parameters()}


def test_the_core_stays_in_eval_mode(tmp_path: Path):
    _, path = halved(tmp_path)
    model = recorded(**NEW, weights=str(path)).train()
    assert model.network.readouts.training
    assert not any(m.training for part in core_parts(model.network) for m in part.modules())
    model.eval()
    assert not any(m.training for m in model.modules())
    assert recorded().train().network.convnet.training


def test_new_files_hold_the_widths(tmp_path: Path):
    _, path = halved(tmp_path)
    model, data = recorded(**NEW, weights=str(path), lr=0.05), recording(cells=[5])
    assert is_cut(model)
    run = trainer(tmp_path)
    run.fit(model, datamodule=data)
    run.save_checkpoint(tmp_path / "new.ckpt")
    example = model.example_input_array
    for load in (NeuralResponseModule.load_from_checkpoint, None):
        file = tmp_path / "new.ckpt"
        again = load_pruned(NeuralResponseModule, file) if load is None else load(file)
        assert RECORD in again.state_dict()
        assert again.frozen
        assert not any(p.requires_grad for p in again.network.modulator.parameters())
        for ours, theirs in zip(model.eval()(**example), again.eval()(**example), strict=True):
            assert torch.equal(ours, theirs)
    third = recorded(cells=[2, 3], freeze="core", weights=str(tmp_path / "new.ckpt"))
    assert torch.equal(features(third), features(model))
    whole = recorded(cells=[5], weights=str(tmp_path / "new.ckpt"))
    assert whole.pretrained
    assert all(p.requires_grad for p in whole.parameters())


def test_a_dense_core_serves_as_well(tmp_path: Path):
    source = recorded(readout={"bias": False}).eval()
    scramble(source)
    torch.save(source.state_dict(), tmp_path / "dense.pt")
    model = recorded(**NEW, weights=str(tmp_path / "dense.pt"))
    assert torch.equal(features(model), features(source))
    assert RECORD not in model.state_dict()
    assert model.network.readouts[0].bias is not None


def test_resumed_is_uninterrupted(tmp_path: Path):
    _, path = halved(tmp_path)

    def fit(weights: str | None, resumed: Path | None) -> NeuralResponseModule:
        torch.manual_seed(1)
        model = recorded(**NEW, weights=weights, lr=0.05)
        folder = tmp_path / ("again" if resumed else "whole")
        keep = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
        options = {"callbacks": [keep, ExactResume()], "enable_checkpointing": True}
        run = trainer(tmp_path, max_epochs=2, **options)
        run.fit(model, datamodule=recording(cells=[5]), ckpt_path=resumed, weights_only=True)
        return model

    whole = fit(str(path), None)
    # The file holds the core: the one that it came from may be gone.
    again = fit(None, tmp_path / "whole/epoch=0.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_core_at_its_random_start_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"freeze='core' without weights .*: pass weights="):
        trainer(tmp_path).fit(recorded(**NEW), datamodule=recording(cells=[5]))
    with pytest.raises(ValueError, match="freeze='all': pass 'core'"):
        module(freeze="all")


def test_a_recipe_would_cut_what_is_frozen(tmp_path: Path):
    _, path = halved(tmp_path)
    model = recorded(**NEW, weights=str(path))
    stages = recipes.neural(0.5, 1, 1)
    run = trainer(tmp_path, callbacks=stages, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"ChannelMasker cannot work on .* its core is frozen"):
        run.fit(model, datamodule=recording(cells=[5]))


def test_other_cores_and_other_cells_are_refused(tmp_path: Path):
    _, path = halved(tmp_path)
    with pytest.raises(ValueError, match=r"cut\.ckpt.*"):
        recorded(**NEW, weights=str(path), convnet={"channels": [4, 7, 8]})
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt are of another network \(no readouts"):
        module(**NEW, weights=str(tmp_path / "other.pt"))
    with pytest.raises(FileNotFoundError):
        module(**NEW, weights=str(tmp_path / "gone.pt"))
    model = recorded(**NEW, weights=str(path))
    with pytest.raises(ValueError, match=r"the data have cells=\[4,2\]"):
        trainer(tmp_path).fit(model, datamodule=recording())


def test_a_new_readout_finds_cells_that_the_pruned_core_can_tell(tmp_path: Path):
    """Cells whose rates another readout of that core makes: the right answer is known."""
    source, path = halved(tmp_path, cells=[6])
    small = source.network.readouts[0]
    with torch.no_grad():
        small.std.fill_(5.0)  # as readouts start
        small.mean.zero_()
    generator = torch.Generator().manual_seed(0)
    stimulus = torch.randn(512, 1, 25, 15, 15, generator=generator)
    behavior = torch.randn(512, 42, generator=generator)
    with torch.no_grad():
        drive = small(source.network.core(stimulus, behavior))
    rate = ((drive - drive.mean(0)) / drive.std(0)).exp()
    samples = [
        ({"stimulus": s, "behavior": b, "session": torch.tensor(0)},
         {"spikes": r, "valid": torch.ones(6, dtype=torch.bool)})
        for s, b, r in zip(stimulus, behavior, rate, strict=True)
    ]  # fmt: skip
    model = recorded(cells=[6], freeze="core", weights=str(path), lr=0.1, warmup_epochs=0.0)

    def correlation() -> float:
        with torch.no_grad():
            found = model.eval()(stimulus[384:], behavior[384:])[0]
        both = torch.stack([found.T, rate[384:].log().T], 1)
        return sum(torch.corrcoef(pair)[0, 1].item() for pair in both) / len(both)

    before = correlation()
    run = trainer(tmp_path, max_epochs=12, limit_val_batches=0)
    run.fit(model, DataLoader(samples[:384], batch_size=32, shuffle=True))
    assert before < 0.5
    assert correlation() > 0.85
