"""Every file of a run loads like any other, and holds nothing but plain data."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.macs import count_macs
from lightning_prune.surgery.compare import noise_like
from tests.contract.registry import EPOCHS, MODULES, RECIPES, stages, trainer
from tests.contract.runs import QUIET, fit, pairs

pytestmark = QUIET
Run = tuple[str, str, Path, pl.Trainer]


@pytest.fixture(scope="module", params=pairs())
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run with full and with weights-only files."""
    recipe, module = request.param
    folder = tmp_path_factory.mktemp(f"{recipe}_{module}")
    metric = MODULES[module].metric
    every: dict[str, Any] = {"save_top_k": -1, "auto_insert_metric_name": False}
    found = fit(
        folder,
        module,
        [
            *stages(recipe, module, folder).values(),
            ModelCheckpoint(folder / "epoch", "{epoch}", save_on_train_epoch_end=True, **every),
            ModelCheckpoint(
                folder / "weights", "{epoch}", save_weights_only=True, monitor=metric, mode="min",
                **every,
            ),
            ModelCheckpoint(folder, "best", monitor=metric, mode="max", save_last=True),
        ],
    )  # fmt: skip
    yield recipe, module, folder, found
    shutil.rmtree(folder)


def ckpt_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.ckpt"))


def macs(model: pl.LightningModule) -> int:
    return count_macs(model.eval(), model.example_input_array)


@pytest.mark.contract("files load with weights_only=True and by load_from_checkpoint")
def test_every_file_loads_alone(run: Run) -> None:
    recipe, _, folder, trained = run
    found = ckpt_files(folder)
    assert len(found) >= 2 * EPOCHS + 2
    sizes = set()
    for path in found:
        content = torch.load(path, map_location="cpu", weights_only=True)
        kind = type(trained.lightning_module)
        loaded = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, content["state_dict"][name]), (path, name)
        sizes.add(sum(p.numel() for p in loaded.parameters()))
    assert len(sizes) == (2 if RECIPES[recipe].cuts else 1)


@pytest.mark.contract('trainer.test with "best", "last", a path, and weights-only files')
def test_the_trainer_tests_every_file(run: Run) -> None:
    _, module, folder, trained = run
    kind = MODULES[module]
    data = None if kind.data is None else kind.data(0)
    model, name = trained.lightning_module, kind.metric.replace("val/", "test/")
    for ckpt in ("best", "last", folder / "epoch" / "0.ckpt", folder / "weights" / "5.ckpt"):
        tested = trained.test(
            model, datamodule=data, ckpt_path=ckpt, verbose=False, weights_only=True
        )[0]
        assert name in tested
        if isinstance(ckpt, Path):
            alone = type(model).load_from_checkpoint(ckpt, weights_only=True)
            quiet = trainer(folder, [], logger=False, enable_checkpointing=False)
            fresh = quiet.test(alone, datamodule=data, verbose=False)[0]
            assert tested[name] == fresh[name]


@pytest.mark.contract("dense, masked and cut files into a live model of any width")
def test_a_live_model_takes_any_width(run: Run) -> None:
    recipe, module, folder, trained = run
    states = [
        torch.load(folder / "epoch" / f"{epoch}.ckpt", weights_only=True)["state_dict"]
        for epoch in (0, EPOCHS - 1, 2, EPOCHS - 1, 0)
    ]
    # From the cut model to the dense one, and back, and so on.
    live = copy.deepcopy(trained.lightning_module)
    for state in states:
        live.load_state_dict(state)
        for name, value in live.state_dict().items():
            assert torch.equal(value, state[name]), name
        outputs = call(live.eval(), noise_like(live.example_input_array))
        assert all(torch.isfinite(part).all() for part in tree_leaves(outputs))
    dense = MODULES[module].make(0)
    assert (macs(trained.lightning_module) < macs(dense)) is RECIPES[recipe].cuts
