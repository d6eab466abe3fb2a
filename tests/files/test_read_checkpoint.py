import datetime
import pickle
import shutil
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.sidecar import Sidecar
from tests.files.hostile import hostile_files, little_memory, write_archive


def test_it_reads_what_torch_load_reads(tmp_path: Path):
    weight = torch.nn.Parameter(torch.rand(3, 4))
    weight.note = "an attribute of its own"
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    content = {
        "state_dict": OrderedDict(w=weight, view=weight.detach()[1:, ::2], h=torch.ones(2).half()),
        "more": [
            torch.ones(2, dtype=torch.float8_e5m2), torch.ones(2, dtype=torch.complex64),
            torch.zeros(1).expand(7), torch.zeros(0),
        ],
        "plain": [1, 2.5, None, True, "x", b"bytes", bytearray(b"more"), (1, 2), {3}, 1 + 2j],
        "kinds": [torch.Size([1, 2]), torch.device("cpu"), torch.float32],
        "optimizer_states": [optimizer.state_dict()],
    }  # fmt: skip
    torch.save(content, tmp_path / "a.ckpt")
    ours = read_checkpoint(tmp_path / "a.ckpt")
    theirs = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert str(ours) == str(theirs)
    assert str(ours["plain"]) == str(content["plain"])
    assert torch.equal(ours["state_dict"]["w"], weight)
    shapes = read_checkpoint(tmp_path / "a.ckpt", "meta")
    assert shapes["state_dict"]["w"].is_meta
    assert shapes["state_dict"]["view"].shape == (2, 2)
    assert shapes["plain"] == content["plain"]


VALUES = {
    "sparse": torch.eye(3).to_sparse(),
    "empty": torch.zeros(0, 4, 5), "conj": torch.ones(2, dtype=torch.complex64).conj(),
    "imaginary": torch.ones(2, dtype=torch.complex64).conj().imag,
    "8 bits": torch.ones(2, dtype=torch.float8_e4m3fn), "16 bits": torch.ones(2).to(torch.uint16),
    "buffer": torch.nn.Buffer(torch.ones(2)), "meta": torch.zeros(3, device="meta"),
    "expanded": torch.zeros(1).expand(10**6), "norm": torch.nn.BatchNorm2d(3).state_dict(),
    "counter": Counter("abca"), "ordered": OrderedDict(a=1), "large": 2**100, "bytes": b"\xff\x00",
    "large keys": {2**127 + n: n for n in range(1000)} | {"\ud800": 1, 1j: 2},
    "tuples as keys": {(n, (str(n), (None, 1.5))): n for n in range(20_000)},
    "keys": {(1, ("a", 2)): 3, 1.5: 4, None: 5, b"x": 6, torch.Size([1]): 7, True: 8},
    "device": torch.device("cuda:1"), "layout": torch.strided, "surrogate": "\ud800",
    "numbers": [float("inf"), -0.0, 1j], "list": list(range(100_000)), "shared": [[1]] * 1000,
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_values_of_every_kind_are_those_of_torch(tmp_path: Path, kind):
    path = tmp_path / "a.ckpt"
    torch.save({"x": VALUES[kind]}, path)
    assert str(read_checkpoint(path)) == str(torch.load(path, weights_only=True))
    shapes = read_checkpoint(path, "meta")["x"]
    if isinstance(VALUES[kind], torch.Tensor):
        assert (shapes.shape, shapes.dtype) == (VALUES[kind].shape, VALUES[kind].dtype)
    elif kind != "norm":
        assert str(shapes) == str(VALUES[kind])


def test_a_configuration_is_refused_with_what_stores_it(tmp_path: Path):
    torch.save({"x": OmegaConf.create({"a": 1})}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"DictConfig.*AtomicCheckpointIO\(\)\) stores"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_classes_that_the_user_declared_are_read_and_stand_as_records_in_the_shapes(tmp_path: Path):
    torch.save({"x": datetime.timedelta(3)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"pickled objects \(datetime\.timedelta\)"):
        read_checkpoint(tmp_path / "a.ckpt")
    with torch.serialization.safe_globals([datetime.timedelta]):
        assert read_checkpoint(tmp_path / "a.ckpt")["x"] == datetime.timedelta(3)
        assert read_checkpoint(tmp_path / "a.ckpt", "meta")["x"].path == "datetime.timedelta"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_that_are_not_read_are_said_to_be_so(tmp_path: Path):
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({"x": nested}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="tensors of a kind that is not read"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_the_steps_of_a_walk_are_bounded_by_the_size_of_the_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lightning_prune.files.inert_pickle._STEPS", 1000)
    torch.save({"x": [1.5] * 400}, tmp_path / "a.ckpt")
    assert len(read_checkpoint(tmp_path / "a.ckpt")["x"]) == 400
    torch.save({"x": [float(n) for n in range(2000)]}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"more than \d+ steps"):
        read_checkpoint(tmp_path / "a.ckpt")
    torch.save({"x": [float(n) for n in range(2000)], "y": torch.zeros(9000)}, tmp_path / "a.ckpt")
    assert len(read_checkpoint(tmp_path / "a.ckpt")["x"]) == 2000


def test_hostile_files_are_refused(tmp_path: Path):
    for name, path, message in hostile_files(tmp_path):
        for device in ("cpu", "meta"):
            with little_memory(), pytest.raises(CheckpointError, match=message) as caught:
                read_checkpoint(path, device)
            assert str(path) in str(caught.value), name
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(CheckpointError, match="a folder, not a file"):
        read_checkpoint(tmp_path)


def test_the_checksums_inside_are_compared_where_there_is_no_sidecar(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.zeros(64, 64)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"].sum() != 0  # torch does not look at them
    with pytest.raises(CheckpointError, match=r"damaged: the checksum of a/data/0 is wrong"):
        read_checkpoint(path)


def test_the_sidecar_counts_through_a_link(tmp_path: Path):
    torch.save({"a": 1}, tmp_path / "a.ckpt")
    (tmp_path / "last.ckpt").symlink_to("a.ckpt")
    Sidecar(tmp_path / "a.ckpt").write(["0" * 64])
    with pytest.raises(CheckpointError, match=r"match a\.ckpt\.sha256 .*delete that one"):
        read_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "a.ckpt.sha256").unlink()
    assert read_checkpoint(tmp_path / "last.ckpt") == {"a": 1}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "a.ckpt"
    torch.save({"state_dict": {"w": torch.arange(300.0)}, "epoch": 3, "text": "abc" * 50}, path)
    sidecar = Sidecar(path)
    sidecar.write(sidecar.current())
    return path


def altered(original: Path, folder: Path, data: bytes, sidecar: bool) -> Path:
    (folder / "a.ckpt").write_bytes(data)
    (folder / "a.ckpt.sha256").unlink(missing_ok=True)
    if sidecar:
        shutil.copy(original.with_name("a.ckpt.sha256"), folder)
    return folder / "a.ckpt"


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_never_a_silent_wrong_load(original, tmp_path_factory, draw, sidecar):
    folder = tmp_path_factory.getbasetemp() / "altered"
    folder.mkdir(exist_ok=True)
    data = bytearray(original.read_bytes())
    expected = str(read_checkpoint(original))
    if draw.draw(st.booleans(), "truncate"):
        del data[draw.draw(st.integers(0, len(data) - 1), "length") :]
    else:
        for _ in range(draw.draw(st.integers(1, 3), "flips")):
            data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    path = altered(original, folder, bytes(data), sidecar)
    if bytes(data) == original.read_bytes():  # two flips of one bit
        assert str(read_checkpoint(path)) == expected
        return
    try:
        found = read_checkpoint(path)
    except CheckpointError:
        return
    # Without a digest a flip in the padding between members is no harm, and is not seen.
    assert not sidecar
    assert str(found) == expected


def test_errors_travel_between_processes(tmp_path: Path):
    error = CheckpointError(tmp_path / "a.ckpt", "torn")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == f"{tmp_path / 'a.ckpt'}: torn"
    assert again.path == error.path
    assert isinstance(again, ValueError)


def test_a_file_of_another_zip_writer_loads(tmp_path: Path):
    assert torch.equal(read_checkpoint(write_archive(tmp_path / "a.ckpt"))["t"], torch.zeros(4))
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(CheckpointError, match=r"a zip archive that torch\.save did not"):
        read_checkpoint(tmp_path / "b.ckpt")
