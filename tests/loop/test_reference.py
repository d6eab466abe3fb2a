"""The reference's own configurations and what it masked by them (golden vectors 15)."""

import json

import numpy as np
import pytest
import torch

from lightning_prune.loop.pruning import Pruning
from tests.loop.plain import write
from tests.policies.specs import SpecNet

NOT_IN_THE_SEED = ("prune_at_target", "verbose")


@pytest.mark.parametrize("net", ["chain", "residual"])
@pytest.mark.parametrize("ranking", ["global", "isomorphic", "local"])
def test_ratios_and_the_first_masks(golden_vectors, tmp_path, net, ranking):
    file = golden_vectors / "15_sirc_mask_trace.json"
    content, arrays = json.loads(file.read_text()), np.load(file.with_suffix(".npz"))
    (case,) = (c for c in content["cases"] if (c["net"], c["mode"]) == (net, ranking))
    model = SpecNet(content["specs"][net])
    start = f"{net}|param|"
    state = {k.removeprefix(start): torch.from_numpy(arrays[k]) for k in arrays if start in k}
    model.load_state_dict(state, strict=False)
    keys = {k: v for k, v in case["config"].items() if k not in NOT_IN_THE_SEED}
    # The trace continues below the target.
    pruner = Pruning(model, write(tmp_path, keys | {"mac_target": None}), model.forward)
    ratio = 0.0
    for expected in case["history"]:
        lines: list[str] = []
        pruner.prune(model, expected["epoch"], log=lines.append)
        steps = [line for line in lines if "ratio" in line]
        if steps:
            ratio = float(steps[0].split("ratio ")[1].split(",")[0])
        assert ratio == pytest.approx(expected["pr"], abs=1e-3)
        if expected["epoch"] == 1:
            plan, groups = pruner.channel_pruner.plan, pruner.channel_pruner.groups
            found = {
                layer: plan.removed(name).tolist()
                for name in plan.keep
                for layer in groups[name].producers
            }
            for layer, masked in expected["masked_out_channels"].items():
                assert found.get(layer, []) == masked
    assert pruner.channel_pruner.done
