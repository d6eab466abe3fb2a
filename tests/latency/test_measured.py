"""Kernels and networks timed by ONNX Runtime itself, here and from a folder without PyTorch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.latency.bundle import read_bundle, write_bundle
from lightning_prune.latency.kernel_graphs import kernel_graph
from lightning_prune.latency.measured import MeasuredFraction, measured_table
from lightning_prune.latency.timer import kernel_times, measure, whole_times
from lightning_prune.latency.units import Unit, layer_units
from lightning_prune.latency.whole_models import whole_model
from tests.latency.networks import EXAMPLE, job_of, small

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONV = Unit("conv", 32, 16, (8, 10), 1, (3, 3), (2, 1), (1, 1), (1, 1))
DEPTHWISE = Unit("depthwise", 32, 1, (8, 8), 1, (3, 3), (1, 1), (1, 1), (1, 1))
LINEAR = Unit("linear", 32, 16, (7,))
ONE_D = Unit("conv", 16, 16, (20,), 2, (5,), (1,), (2,), (1,))


@pytest.mark.parametrize("unit", [CONV, DEPTHWISE, LINEAR, ONE_D])
def test_each_width_of_a_kernel_is_timed(unit):
    model = kernel_graph(unit, 16, [8, 16])
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    times = kernel_times(model, 1, 3)
    assert set(times) == {8, 16}
    assert min(times.values()) >= 0


def test_a_kernel_computes_what_pytorch_computes():
    session = onnxruntime.InferenceSession(kernel_graph(CONV, 16, [8]))
    x = torch.randn(1, 8, 8, 10)
    stem = nn.functional.conv2d(x, torch.full((16, 8, 1, 1), 0.01))
    own = nn.functional.conv2d(
        stem, torch.full((8, 16, 3, 3), 0.01), torch.full((8,), 0.01), (2, 1), 1
    )
    wanted = nn.functional.conv2d(own, torch.full((8, 8, 1, 1), 0.01))
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_units_are_the_sizes_of_layers():
    net = nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=2, padding=(1, 2), dilation=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 4, 1, padding="same"),
        nn.Flatten(2), nn.Linear(24, 6),
    )  # fmt: skip
    units = layer_units(net, torch.zeros(2, 3, 20, 16))
    assert units["0"] == Unit("conv", 8, 3, (20, 16), 2, (3, 5), (2, 2), (1, 2), (1, 1))
    assert units["2"].kind == "depthwise"
    assert set(units) == {"0", "2", "6"}, "no kernel alone: groups, padding by a word"
    assert units["6"] == Unit("linear", 6, 24, (8,))
    tied = nn.Linear(4, 4)
    assert layer_units(nn.Sequential(tied, tied), torch.zeros(1, 4)) == {}


def test_whole_models_are_the_cut_network():
    net, groups, _ = small()
    widths = {name: group.channels - 8 for name, group in groups.items()}
    session = onnxruntime.InferenceSession(whole_model(net, groups, widths, EXAMPLE))
    (given,) = session.get_inputs()
    assert list(given.shape) == list(EXAMPLE.shape)
    dense = onnxruntime.InferenceSession(whole_model(net, groups, {}, EXAMPLE))
    x = torch.randn(EXAMPLE.shape)
    (found,) = dense.run(None, {dense.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    assert net.stem[0].out_channels == 24, "the network itself is left as it was"


def test_a_table_of_this_machine():
    net, groups, macs = small()
    table = measured_table(net, groups, list(groups), macs, EXAMPLE, plans=3)
    assert table.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert len(table.errors) == 4
    assert 0 < table.dense < 1000
    model = table.model(macs)
    narrow = dict.fromkeys(groups, 8)
    assert model.remaining(narrow) <= model.total
    assert MeasuredFraction(net, groups, EXAMPLE)(narrow) > 0


def test_a_folder_is_measured_without_pytorch_and_read(tmp_path):
    net, groups, macs = small()
    job = job_of(net, groups, plans=3, points=2)
    folder = tmp_path / "box"
    write_bundle(job, folder)
    with pytest.raises(ValueError, match="not empty"):
        write_bundle(job, folder)
    with pytest.raises(ValueError, match=r"times\.json: there is no such file.*measure\.py"):
        read_bundle(folder, macs)
    code = (
        "import runpy, sys; sys.argv = ['measure.py', '--rounds', '3'];"
        "runpy.run_path('measure.py', run_name='__main__');"
        "assert not {'torch', 'lightning_prune'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    table = read_bundle(folder, macs)
    times = json.loads((folder / "times.json").read_text())
    assert table.dense == times["whole"][0]
    assert len(times["kernels"]) == len(job.kernels)
    other = job_of(net, groups, plans=3, points=3)
    (folder / "job.json").write_text(json.dumps(other.description()))
    with pytest.raises(ValueError, match="do not belong together"):
        read_bundle(folder, macs)


def test_networks_take_turns_on_all_threads():
    net, groups, _ = small()
    models = [whole_model(net, groups, {}, EXAMPLE)] * 2
    assert all(time > 0 for time in whole_times(models, 2, 3))
    found = measure([], models, threads=1, rounds=2)
    assert found["kernels"] == []
    assert len(found["whole"]) == 2
