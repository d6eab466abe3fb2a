import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_safetensors import read_safetensors


def test_tensors_and_texts_are_read(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()}, path, {"names": "x"})
    tensors, texts = read_safetensors(path)
    assert torch.equal(tensors["w"], torch.arange(6.0).view(2, 3))
    assert tensors["b"].dtype == torch.float16
    assert texts == {"names": "x"}


def header(**entry) -> bytes:
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry})
    return struct.pack("<Q", len(text)) + text.encode() + bytes(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS pointer"),
        (b"<!doctype html>", "web page"),
        (b"", "an empty file"),
        (struct.pack("<Q", 2**40) + b"{", "damaged or no safetensors file"),
        (header()[:30], "damaged or torn"),
        (header(shape=[2**40]), "damaged or no"),
        (header(data_offsets=[0, 2**60]), "damaged or no"),
        (header(dtype="X9"), "damaged or no"),
        (struct.pack("<Q", 9000) + b"[" * 9000, "damaged or no"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="a named pipe"):
        read_safetensors(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="a folder"):
        read_safetensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "absent.safetensors")
