"""Weights alone beside the checkpoints that are kept after the cut."""

import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from safetensors.torch import load_file
from torch.optim.swa_utils import get_ema_avg_fn

from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict
from tests.callbacks.test_pruned_checkpoint import Scored, run

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed from", "ignore:Checkpoint directory .* is not empty"
)


def test_each_kept_file_has_its_own_and_no_other_is_left(tmp_path):
    best = PrunedCheckpoint(str(tmp_path), "{epoch}", monitor="val/score", save_top_k=2)
    run(tmp_path, [best])
    kept = sorted(tmp_path.glob("*.ckpt"))
    assert [path.stem for path in kept] == ["epoch=4", "epoch=5"]
    assert sorted(tmp_path.glob("*.safetensors")) == [p.with_suffix(".safetensors") for p in kept]
    for path in kept:
        lean = path.with_suffix(".safetensors")
        state = torch.load(path, weights_only=True)["state_dict"]
        found = load_file(lean)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())
        assert lean.stat().st_size < 0.8 * path.stat().st_size
        dense = Scored()
        load_pruned_state_dict(dense, found, strict=True)
        assert len(dense.state_dict()["net.deep.0.weight"]) < 16


def test_averages_are_written_where_the_checkpoint_has_them(tmp_path):
    averages = WeightAveraging(avg_fn=get_ema_avg_fn(0.9))
    best = PrunedCheckpoint(str(tmp_path), monitor="val/score")
    run(tmp_path, [best], extra=[averages])
    state = torch.load(tmp_path / "best_pruned.ckpt", weights_only=True)["state_dict"]
    found = load_file(tmp_path / "best_pruned.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_none_where_none_are_wanted(tmp_path):
    run(tmp_path, [PrunedCheckpoint(str(tmp_path), monitor="val/score", lean_weights=False)])
    assert (tmp_path / "best_pruned.ckpt").is_file()
    assert not list(tmp_path.glob("*.safetensors"))
