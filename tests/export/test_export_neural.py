from pathlib import Path

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.network.network import NeuralResponseNetwork
from lightning_prune.neural.network.options import ConvNetOptions, ModulatorOptions
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import cut_channels

pytest.importorskip("onnxruntime")

from lightning_prune.export.export_onnx import export_onnx


# Minutes within the exporter; test_export_bundle.py and the README's commands export others.
@pytest.mark.slow
def test_a_cut_network_of_two_inputs_takes_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NeuralResponseNetwork(
        [5, 3],
        convnet=ConvNetOptions(channels=(8, 12, 16)),
        modulator=ModulatorOptions(behavior_dim=6, feature_dim=16, hidden_dim=16, beh_emb_dim=8),
    )
    example = {"stimulus": torch.zeros(1, 1, 19, 15, 15), "behavior": torch.zeros(1, 6)}
    groups = trace_groups(net, example)
    keep = {name: torch.arange(group.channels - 1) for name, group in groups.items()}
    channels = {name: group.channels for name, group in groups.items()}
    cut_channels(net, groups, PruningPlan(keep, channels))
    # Compared with ONNX Runtime on batches of 1 and 3.
    assert export_onnx(net, tmp_path / "net.onnx", example) < 1e-4
