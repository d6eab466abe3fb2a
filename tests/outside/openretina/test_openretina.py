"""Core-readout models of an installed openretina: `make test-openretina` installs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.scramble import scramble
from lightning_prune.testing import check_prunable
from tests.test_examples import run

pytest.importorskip("openretina", reason="make test-openretina installs it")
from omegaconf import OmegaConf
from openretina.models.core_readout import UnifiedCoreReadout

# Of the package itself: indexing and initialising in ways that are deprecated, the sessions joined
# where no key is given, frames cut, shapes that its readouts were built for.
pytestmark = pytest.mark.filterwarnings("ignore")
CORES: dict[str, dict[str, Any]] = {
    "gru": {"_target_": "openretina.modules.core.gru_core.ConvGRUCore", "use_gru": True,
            "gru_kwargs": {"rec_channels": 10, "input_kern": 3, "rec_kern": 3}},
    "convolutions": {"_target_": "openretina.modules.core.base_core.SimpleCoreWrapper",
                     "cut_first_n_frames": 3, "gamma_input": 0.0, "gamma_temporal": 0.0,
                     "gamma_in_sparse": 0.0, "gamma_hidden": 0.0},
}  # fmt: skip
_READOUTS = "openretina.modules.readout.multi_readout"
READOUTS: dict[str, dict[str, Any]] = {
    "gaussian": {"_target_": f"{_READOUTS}.MultiGaussianMaskReadout", "scale": True, "bias": True,
                 "gaussian_mean_scale": 6.0, "gaussian_var_scale": 4.0, "positive": True},
    "factorized": {"_target_": f"{_READOUTS}.MultiFactorizedReadout", "mask_l1_reg": 0.01,
                   "weights_l1_reg": 0.01, "laplace_mask_reg": 0.01, "readout_bias": True,
                   "init_scales": [[0.0, 0.1], [0.0, 0.1]]},
    "point": {"_target_": f"{_READOUTS}.MultiSampledGaussianReadout", "bias": True,
              "init_mu_range": 0.5, "init_sigma_range": 0.15, "gamma": 0.01},
}  # fmt: skip
# Groups of channels of each kind of convolution, the ConvGRU's hidden size besides.
CONVOLUTIONS = {"custom_separable": 2, "full": 2, "separable": 4}


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("core", CORES)
def test_masked_is_cut(core: str, convolution: str, readout: str):
    torch.manual_seed(0)
    made = {"_convert_": "object", "temporal_kernel_sizes": [6, 5], "spatial_kernel_sizes": [5, 3]}
    made |= {"convolution_type": convolution, **CORES[core]}
    model = UnifiedCoreReadout(
        (2, 24, 16, 16),
        {"a": 5, "b": 7},
        OmegaConf.create(made),
        OmegaConf.create({"_convert_": "object", **READOUTS[readout]}),
        (12, 16),
    )
    scramble(model)
    movie = torch.randn(2, 2, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    assert check_prunable(model, movie).groups == CONVOLUTIONS[convolution] + (core == "gru")
    groups = trace_groups(model, movie)
    assert not [layer for layer in groups.refused if layer.startswith("core.")]


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    correlation = run("prune_openretina", tmp_path, monkeypatch)
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]
    assert report["cut"]["output_difference"] < 1e-4
    assert correlation == pytest.approx(report["pruned"]["metrics"]["val_evaluation_loss"])
    pruned = {row["group"] for row in report["layers"] if row["status"] == "pruned"}
    assert "core.features.layer1.conv" in pruned
    assert any(name.startswith("core.features.gru") for name in pruned)
