"""Files of strangers: checkpoints and weights, changed at random on three levels."""

import io
import itertools
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.architecture import RECORD, track_architecture
from lightning_prune.surgery.cut import cut_channels

KINDS = ("dense", "pruned", "module", "safetensors")
LEVELS = ("zip", "pickle", "content", "bytes")


class Small(pl.LightningModule):
    """A module that knows its architecture."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 1)
        )
        track_architecture(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def content_of(kind: str) -> dict[str, Any]:
    """What the unchanged file of a kind holds."""
    torch.manual_seed(0)
    module = Small()
    if kind == "module":
        return {"epoch": -1, "model": module.net, "ema": None, "train_args": {"imgsz": 64}}
    if kind == "pruned":
        groups = trace_groups(module, torch.zeros(1, 3, 8, 8))
        cut_channels(
            module,
            groups,
            PruningPlan(
                {name: torch.tensor([0, 2, 5]) for name in groups}, dict.fromkeys(groups, 8)
            ),
        )
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.6.0",
        "state_dict": module.state_dict(), "loops": {"fit_loop": {"state_dict": {}, "n": [1, 2]}},
        "callbacks": {"ModelCheckpoint{'monitor': 'x'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs", "hyper_parameters": {"width": 8},
    }  # fmt: skip


def file_of(kind: str) -> bytes:
    """The bytes of the unchanged file of a kind."""
    content = content_of("dense" if kind == "safetensors" else kind)
    if kind == "safetensors":
        return save_safetensors(dict(content["state_dict"]), {"names": '{"0": "cat"}'})
    return _saved(content)


def mutate(kind: str, level: str, original: bytes, seed: int) -> bytes:
    """Change the file of a kind on one level."""
    rng = random.Random(seed)
    if level == "bytes" or (kind == "safetensors" and level == "zip"):
        return change_bytes(original, rng)
    if kind == "safetensors":
        return change_header(original, rng)
    if level == "zip":
        return change_zip(original, rng)
    if level == "pickle":
        return _with_pickle(original, lambda data: change_pickle(data, rng))
    content = torch.load(io.BytesIO(original), weights_only=False)
    for _ in range(rng.randint(1, 3)):
        change_content(content, rng)
    return _saved(content)


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, insert, or put another file's beginning in front."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out))
        how = rng.randrange(6)
        if how == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[place : place + 4] = struct.pack("<L", rng.choice([0, 1, 2**31, 2**32 - 1]))
        elif how == 2:
            del out[place : place + rng.randint(1, 200)]
        elif how == 3:
            out[place:place] = out[place : place + rng.randint(1, 200)]
        elif how == 4:
            del out[max(place, 1) :]
        else:
            out[:0] = rng.choice(
                [b"\0" * 64, b"PK\x03\x04", b"<html>", data[: rng.randint(1, 300)]]
            )
        if not out:
            break
    return bytes(out)


def change_zip(data: bytes, rng: random.Random) -> bytes:
    """Write the members again under other names, flags, sizes and places."""
    members = _members(data)
    for _ in range(rng.randint(0, 2)):
        place = rng.randrange(len(members))
        name, content = members[place]
        members[place] = rng.choice([
            (name.upper(), content), (name + "\0x", content), ("../" + name, content),
            (name.replace("/", "//"), content), (name, content[:-1]), (name + "/", content),
            ("other/" + name, content), (name, content * 2), (name, b""), (name.lower(), content),
        ])  # fmt: skip
        if rng.random() < 0.5:
            members.insert(
                rng.randrange(len(members) + 1), (rng.choice([name.upper(), name, "x/y"]), content)
            )
    extra = ("archive/byteorder", rng.choice([b"big", b"little", b"middle", b""]))
    if rng.random() < 0.3:
        members = [m for m in members if not m[0].endswith("byteorder")] + [extra]
    buffer = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, packed
            archive.writestr(info, content)
        if rng.random() < 0.6:
            one = rng.choice(archive.filelist)
            field = rng.choice(["file_size", "compress_size", "header_offset", "CRC", "flag_bits",
                                "compress_type", "volume", "extra", "comment"])  # fmt: skip
            odd: Any = rng.choice([0, 1, 8, 2**16 - 1, 2**31, 2**32 - 1, 2**40])
            if field in ("flag_bits", "compress_type", "volume"):
                odd %= 2**16
            if field == "CRC":
                odd %= 2**32
            if field in ("extra", "comment"):
                odd = struct.pack("<HHQ", 1, 8, odd)
            setattr(one, field, odd)
        if rng.random() < 0.1:
            archive.comment = b"PK\x05\x06" + bytes(18)
    out = buffer.getvalue()
    if rng.random() < 0.3:  # only the directory and the headers
        place = len(out) - rng.randrange(1, 400)
        out = out[:place] + bytes([rng.randrange(256)]) + out[place + 1 :]
    return out


def _members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def _with_pickle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _members(data):
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return buffer.getvalue()


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<L", len(word)) + word.encode()


_CODES = b"}]()N\x88\x89\x85\x86\x870124aesublRQ\x81\x92.tdo\x8f\x90\x91\x93\x94"
NAMES = """
torch._utils _rebuild_tensor_v2, torch._utils _rebuild_tensor_v3, torch._utils _rebuild_parameter,
torch._utils _rebuild_parameter_with_state, torch._utils _rebuild_qtensor, torch FloatStorage,
torch._utils _rebuild_sparse_tensor, torch._tensor _rebuild_from_type_v2, torch QInt8Storage,
torch._utils _rebuild_meta_tensor_no_storage, torch._utils _rebuild_wrapper_subclass, torch device,
torch._utils _rebuild_nested_tensor, torch._utils _rebuild_device_tensor_from_cpu_tensor,
torch.nn.parameter Parameter, torch Tensor, torch FloatTensor, torch Size, torch float32,
torch.serialization _get_layout, torch.sparse FloatTensor, torch.storage UntypedStorage,
builtins bytearray, builtins set, builtins complex, builtins eval, __builtin__ set, os system,
collections OrderedDict, collections Counter, collections defaultdict, _codecs encode,
copyreg _reconstructor, numpy.core.multiarray scalar, torch._utils x\u20ac
"""
PIECES = [
    *[bytes([code]) for code in _CODES],
    *[b"c%s\n%s\n" % tuple(name.encode().split()) for name in NAMES.split(",")],
    *[_text(word) for word in ("storage", "0", "cpu", "_metadata", "version", "\u20ac", "latin1")],
    b"2" * 50, b"2\x86" * 40, b"K\x01" + b"\x85" * 3000, b"(" * 300, b"]" * 300, b"K\xff",
    b"M\xff\xff", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"\x8a\xff" + b"\x7f" * 255, b"\x8b\x10\x00\x00\x00" + b"\x7f" * 16, b"G\x7f\xf8" + bytes(6),
    b"h\x00", b"h\x05", b"q\x00", b"r\xff\xff\xff\xff", b"j\x00\x00\x00\x00",
    b"X\x03\x00\x00\x00\xed\xa0\x80", b"L9999999999999999999L\n", b"I01\n", b"F1e999\n", b"Pabc\n",
    b"\x95" + b"\xff" * 8, b"\x96" + b"\xff" * 8, b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x82\x01",
    b"\x80\x04", b"\x80\xff", b"\x97", b"\x98",
]  # fmt: skip


def change_pickle(data: bytes, rng: random.Random) -> bytes:
    """Delete, repeat, exchange and insert opcodes, and change their arguments."""
    places = [*(place for _, _, place in pickletools.genops(data)), len(data)]
    codes = [data[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(rng.randint(1, 4)):
        here = rng.randrange(len(codes))
        how = rng.randrange(7)
        if how == 0:
            del codes[here : here + rng.randint(1, 3)]
        elif how == 1:
            codes[here:here] = codes[here : here + rng.randint(1, 30)]
        elif how == 2:
            other = rng.randrange(len(codes))
            codes[here], codes[other] = codes[other], codes[here]
        elif how in (3, 4):
            codes[here:here] = rng.choices(PIECES, k=rng.randint(1, 3))
        elif how == 5:
            codes[here] = rng.choice(PIECES)
        elif len(codes[here]) > 1:
            piece = bytearray(codes[here])
            piece[rng.randrange(1, len(piece))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
            codes[here] = bytes(piece)
    return b"".join(codes)


def _odd_value(rng: random.Random) -> Any:
    shared: Any = [1]
    for _ in range(rng.choice([3, 60])):
        shared = [shared, shared]
    deep: Any = ()
    for _ in range(rng.choice([5, 400])):
        deep = (deep,)
    return rng.choice([
        None, True, -1, 0, 2**31, 2**63 - 1, 2**63, 2**200, 1.5, float("nan"), float("inf"), "x",
        "", "\x1b[2J\n" * 50, b"x", [], {}, (), shared, deep, {1: 2}, {(1, 2): 3}, {"a": []}, 1j,
        {1, 2}, torch.zeros(0), torch.zeros(3), torch.zeros(2, 3), torch.tensor(float("nan")),
        torch.ones(8) * 1j, torch.ones(8, dtype=torch.int64), torch.ones(2, 2).to_sparse(),
        torch.zeros(1).expand(1000), torch.ones(8, dtype=torch.float8_e5m2), -torch.ones(8),
        torch.zeros(8, device="meta"), torch.device("cpu"), torch.float16, torch.Size([2, 3]),
        bytearray(b"xy"), list(range(50)), torch.ones(3, 3, 3, 3), torch.ones(5),
    ])  # fmt: skip


def change_content(content: Any, rng: random.Random) -> None:
    """Replace, remove or rename something at a random place in nested dicts and lists."""
    place = content
    while True:
        children = place.values() if isinstance(place, dict) else place
        inner = [child for child in children if isinstance(child, dict | list) and child]
        if not inner or rng.random() < 0.3:
            break
        place = rng.choice(inner)
    key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    how = rng.randrange(6)
    if how == 0:
        del place[key]
    elif how == 1 and isinstance(place, dict):
        place[rng.choice(["x", "", "net.0.weight", RECORD, 3, (1, 2), None, 2.5])] = place[key]
    elif how == 2 and _is_dense(place[key]):
        value = place[key]
        place[key] = rng.choice([value[:1], value[:-1], value.double(), value.half(), value[None],
                                 torch.cat([value, value]), value.to(torch.complex64)])  # fmt: skip
    elif how == 3 and key == RECORD:
        place[key] = _other_record(place[key], rng)
    else:
        place[key] = _odd_value(rng)


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.ndim > 0


def _other_record(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, Tensor) or value.dtype != torch.uint8:
        return value
    text = bytearray(value.tolist())
    odd = rng.choice([b"9", b"-", b"[", b'"', b"1e9", b"null", b"[" * 2000, b"9" * 5000])
    place = rng.randrange(len(text) or 1)
    text[place : place + rng.randint(0, 2)] = odd
    return torch.tensor(list(text), dtype=torch.uint8)


def change_header(data: bytes, rng: random.Random) -> bytes:
    """Change the names, types, shapes and places in the header of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = rng.choice([key for key in header if key != "__metadata__"])
    one = header[name]
    how = rng.randrange(7)
    if how == 0:
        one["shape"] = rng.choice([[], [2**40], [-1], [1] * 100, "x", [0], [2**63, 2**63]])
    elif how == 1:
        one["dtype"] = rng.choice(["F16", "F64", "BOOL", "F8_E4M3", "F4", "X", 3, "C64", "I64"])
    elif how == 2:
        one["data_offsets"] = rng.choice([[0, 0], [0, 2**60], [-1, 4], [8, 4], [0], "x"])
    elif how == 3:
        header[rng.choice(["", "net.0.weight", "\n" * 99, RECORD])] = header.pop(name)
    elif how == 4:
        header["__metadata__"] = rng.choice([{}, {"names": "[" * 9999}, {"names": 3}, "x", None])
    elif how == 5:
        header[name] = rng.choice([None, [], {}, "x"])
    text = json.dumps(header).encode()
    if how == 6:
        text = rng.choice(
            [b"[" * 5000, b"{" * 5000, b'{"a":' * 3000, text[:-5], b"", text + b"   "]
        )
    size = rng.choice([len(text)] * 6 + [0, 2**40, 2**64 - 1])
    return struct.pack("<Q", size) + text + rest


def write(folder: Path, kind: str, data: bytes) -> Path:
    """Write a file under the name of its kind."""
    suffix = {"module": "pt", "safetensors": "safetensors"}.get(kind, "ckpt")
    path = folder / f"x.{suffix}"
    path.write_bytes(data)
    return path
