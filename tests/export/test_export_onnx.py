"""Cut networks of every shape arrive in ONNX Runtime as they are; a failed check writes nothing."""

import copy
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export import export_onnx as room
from lightning_prune.export.export_onnx import export_onnx
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.compare import eval_outputs, noise_like
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, Depthwise, Residual, make, random_plan

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("kind", [Residual, Depthwise])
def test_a_cut_network_gives_the_same_in_the_runtime(kind: type[nn.Module], tmp_path: Path):
    model = make(kind)
    groups = trace_groups(model, EXAMPLE)
    cut_channels(model, groups, random_plan(groups, seed=0))
    path = tmp_path / "new" / "net.onnx"
    assert export_onnx(model, path, EXAMPLE) < 1e-4
    x = noise_like(EXAMPLE, seed=3)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"input0": x.numpy()})
    (expected,) = eval_outputs(model, x)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]


def test_a_failed_check_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"earlier")
    model = nn.Linear(4, 2)
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.weight += 1
    convert = room.onnx_model
    monkeypatch.setattr(room, "onnx_model", lambda _, *rest: convert(wrong, *rest))
    with pytest.raises(AssertionError, match=r"allowed is 0\.001: nothing was written"):
        export_onnx(model, path, torch.zeros(1, 4))
    assert path.read_bytes() == b"earlier"
    assert export_onnx(model, path, torch.zeros(1, 4), tolerance=100) > 0.1
    assert path.read_bytes() != b"earlier"


def test_negative_tolerance(tmp_path: Path):
    with pytest.raises(ValueError, match="tolerance=-1: pass a fraction of at least 0"):
        export_onnx(nn.Linear(4, 2), tmp_path / "net.onnx", torch.zeros(1, 4), tolerance=-1)


@dataclass
class Answer:
    """What some networks return."""

    logits: Tensor
    hidden: Any = None


class OwnDict(OrderedDict):
    """A dict of its own kind, as transformers' outputs are."""


class Returning(nn.Module):
    """Returns its two tensors in a structure of the user's."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second, self.wrap = nn.Linear(4, 3), nn.Linear(3, 2), wrap

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(x)
        return self.wrap(self.second(hidden), hidden)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (Answer, ["logits", "hidden"]),
        (lambda y, h: Answer(y), ["logits"]),
        (lambda y, h: OwnDict(loss=None, logits=y, more=[h, y]), ["logits", "more.0", "more.1"]),
        (namedtuple("Pair", "y h"), ["y", "h"]),
        (lambda y, h: UserDict(input0=y), ["input0_output0"]),
        (lambda y, h: [None, (y, [h])], ["output0", "output1"]),
    ],
    ids=["dataclass", "field left out", "own dict", "named tuple", "name of an input", "lists"],
)  # fmt: skip
def test_structured_outputs_are_named(wrap: Callable, names: list[str], tmp_path: Path):
    model, path = Returning(wrap), tmp_path / "net.onnx"
    export_onnx(model, path, torch.zeros(1, 4))
    session = onnxruntime.InferenceSession(path)
    assert [node.name for node in session.get_outputs()] == names
    x = noise_like(torch.zeros(2, 4), seed=3)
    found = session.run(None, {"input0": x.numpy()})
    with torch.no_grad():
        hidden = model.first(x)
        expected = {"logits": model.second(hidden), "y": model.second(hidden), "hidden": hidden}
    for name, array in zip(names, found, strict=True):
        if name in expected:
            torch.testing.assert_close(torch.from_numpy(array), expected[name])


def test_what_is_no_tensor_is_named(tmp_path: Path):
    class Thing:
        """Nobody can look into it."""

        def __init__(self, *parts: Tensor):
            self.parts = parts

    with pytest.raises(ValueError, match=r"no tensor is found .*, of type .*Thing: let forward"):
        export_onnx(Returning(Thing), tmp_path / "net.onnx", torch.zeros(1, 4))
    with pytest.warns(UserWarning, match=r"holds a .*Thing beside its tensors: left out"):
        export_onnx(Returning(lambda y, h: (y, Thing(h))), tmp_path / "net.onnx", torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (nn.Linear(4, 2).bfloat16(), torch.zeros(1, 4), r"weight is torch.bfloat16: call .float"),
        (nn.Linear(4, 2).double(), torch.zeros(1, 4), r"weight is torch.float64: call .float"),
        (nn.Linear(4, 2), torch.zeros(1, 4).half(), r"input 0 is torch.float16: call .float"),
        (nn.Linear(4, 2, device="meta"), torch.zeros(1, 4), "meta device, without values"),
        (nn.LazyLinear(2), torch.zeros(1, 4), "has no shape yet: call the network once"),
    ],
)
def test_what_is_not_in_32_bits_on_the_cpu(
    model: nn.Module, example: Tensor, message: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path / "net.onnx", example)


def test_what_the_runtime_cannot_do_is_a_sentence(tmp_path: Path):
    class Inside(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    with pytest.raises(ValueError, match=r"no valid ONNX: .*bfloat16|cannot load the model"):
        export_onnx(Inside(4, 2), tmp_path / "net.onnx", torch.zeros(1, 4))


def test_free_sizes_are_compared_on_a_rectangle(tmp_path: Path):
    model = nn.Conv2d(2, 4, 3, stride=2, padding=1)
    assert export_onnx(model, tmp_path / "net.onnx", torch.zeros(1, 2, 8, 8), size_step=8) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.get_inputs()[0].shape == ["batch", 2, "height", "width"]
    x = noise_like(torch.zeros(3, 2, 8, 40), seed=3)
    (found,) = session.run(None, {"input0": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="for images"):
        export_onnx(nn.Linear(4, 2), tmp_path / "line.onnx", torch.zeros(1, 4), size_step=8)
