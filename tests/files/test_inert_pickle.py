import io
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_prune.files.inert_pickle import Record, read_torch_zip


class Malicious:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write_zip(path, data, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        for key, content in storages:
            archive.writestr(f"archive/data/{key}", content)
    return path


def rewrite(path, change):
    """Copy an archive with its entries changed: name, content -> content or None to leave out."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            content = change(name, content)
            if content is not None:
                archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_reads_tensors_of_every_type(tmp_path, dtype):
    value = (torch.arange(24).reshape(2, 3, 4) % 5).to(dtype)
    content = {"a": value, "view": value[:, 1:, ::2], "t": value.transpose(0, 2), "none": value[:0]}
    torch.save(content, tmp_path / "x.pt")
    found = read_torch_zip(tmp_path / "x.pt")
    for key, expected in content.items():
        assert found[key].dtype == dtype
        assert torch.equal(found[key], expected)


def test_reads_containers_parameters_and_a_scalar(tmp_path):
    content = OrderedDict(
        p=nn.Parameter(torch.rand(3)), scalar=torch.tensor(7), size=torch.Size([1, 2]),
        numbers=[1, 2.5, None, True, (3, "x")], words={"a", "b"}, empty=torch.zeros(0),
    )  # fmt: skip
    content["p"].note = "a parameter with an attribute of its own"
    torch.save(content, tmp_path / "x.pt")
    found = read_torch_zip(tmp_path / "x.pt")
    assert torch.equal(found["p"], content["p"].detach())
    assert found["scalar"].item() == 7
    assert found["numbers"] == content["numbers"]
    assert found["words"] == {"a", "b"}
    assert found["size"] == (1, 2)
    assert found["empty"].shape == (0,)


@pytest.mark.parametrize(
    "payload",
    [
        lambda mark: Malicious(os.system, f"touch {mark}"),
        lambda mark: Malicious(eval, f"open({str(mark)!r}, 'w').close()"),
        lambda mark: Malicious(mark.touch),
    ],
)
def test_executes_nothing(tmp_path, payload):
    mark = tmp_path / "executed"
    torch.save({"model": payload(mark), "fine": torch.ones(2)}, tmp_path / "x.pt")
    found = read_torch_zip(tmp_path / "x.pt")
    assert not mark.exists()
    assert isinstance(found["model"], Record)
    assert torch.equal(found["fine"], torch.ones(2))


def test_a_record_keeps_what_it_was_given(tmp_path):
    torch.save(Malicious(os.system, "true"), tmp_path / "x.pt")
    found = read_torch_zip(tmp_path / "x.pt")
    assert found.path.endswith(".system")
    assert found.arguments == ("true",)
    assert found.attributes == {}


def test_state_is_set_on_records_only(tmp_path):
    # BUILD on a tensor would run Tensor.__setstate__ with values of the file.
    data = pickle.PROTO + b"\x02" + b"ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb."
    assert read_torch_zip(write_zip(tmp_path / "x.pt", data)) == {}


def forged(key="0", count=4, size=(4,), stride=(1,), offset=0, storage="FloatStorage"):
    """Assemble the pickle of one tensor with the given claims."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return obj.claim if isinstance(obj, Claim) else None

    class Claim:
        claim = ("storage", getattr(torch, storage), key, "cpu", count)

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Claim(), offset, size, stride, False, {})

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"t": Tensor()})
    return buffer.getvalue()


def test_reads_a_tensor_assembled_by_hand(tmp_path):
    content = torch.arange(4.0).numpy().tobytes()
    found = read_torch_zip(write_zip(tmp_path / "x.pt", forged(), [("0", content)]))
    assert torch.equal(found["t"], torch.arange(4.0))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"count": 5}, "holds 16 bytes, not 20"),
        ({"count": 1 << 60}, "holds 16 bytes"),
        ({"count": -1}, "a storage of an unknown type or size"),
        ({"size": (5,)}, "larger than"),
        ({"size": (1 << 40,), "stride": (0,)}, "larger than"),
        ({"size": (2,), "stride": (4,)}, "larger than"),
        ({"offset": 1}, "larger than"),
        ({"size": (-4,)}, "size"),
        ({"size": (2, 2)}, "without a storage"),
        ({"key": "7"}, "storage 7 is missing"),
        ({"key": "../../secret"}, "missing"),
    ],
)
def test_refuses_absurd_claims(tmp_path, claim, message):
    path = write_zip(tmp_path / "x.pt", forged(**claim), [("0", bytes(16))])
    with pytest.raises(ValueError, match=message):
        read_torch_zip(path)


def test_refuses_compressed_storages(tmp_path):
    path = write_zip(tmp_path / "x.pt", forged(), [("0", bytes(16))], zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_torch_zip(path)


@pytest.mark.parametrize("kept", [0, 10, 200, 0.3, 0.7, 0.99])
def test_torn_files_give_one_clear_error(tmp_path, kept):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.rand(64, 64)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(ValueError, match="damaged" if kept else "an empty file"):
        read_torch_zip(path)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(64, 64)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_torch_zip(path)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_torn_pickles_give_one_clear_error(tmp_path, cut):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.rand(4), "b": [1, 2]}, path)
    rewrite(path, lambda name, content: content[:-cut] if name.endswith("data.pkl") else content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_torch_zip(path)


def test_refuses_missing_and_double_entries(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.rand(4)}, path)
    rewrite(path, lambda name, content: None if name.endswith("data.pkl") else content)
    with pytest.raises(ValueError, match=r"torch\.save did not write"):
        read_torch_zip(path)
    write_zip(path, forged(), [("0", bytes(16))])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(ValueError, match="share one name"):
        read_torch_zip(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x02cos\nsystem\n.extra",
        b"\x80\x02Q.",  # a persistent id without a value
        b"\x80\x02K\x01Q.",
        b"\x80\x02X\xff\xff\xff\x7fa.",  # a string of two gigabytes
        b"",
    ],
)
def test_refuses_forged_streams(tmp_path, data):
    path = write_zip(tmp_path / "x.pt", data)
    if data.endswith(b"extra"):
        assert read_torch_zip(path) is not None
        return
    with pytest.raises(ValueError, match="cannot be read"):
        read_torch_zip(path)


def test_a_huge_memo_index_costs_nothing(tmp_path):
    data = b"\x80\x02K\x07r\xff\xff\xff\xff."
    assert read_torch_zip(write_zip(tmp_path / "x.pt", data)) == 7


def test_old_files_and_missing_files(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"torch before 1\.6"):
        read_torch_zip(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError):
        read_torch_zip(tmp_path / "none.pt")
