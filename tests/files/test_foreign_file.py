import gzip
import io
import os
import pickle
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from lightning_prune.files.foreign_file import describe_foreign

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 6243242\n"


def torch_file(**options) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(2000)}, "path": "x.npy"}, buffer, **options)
    return buffer.getvalue()


def zipped(name: str, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, kind)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("best.pt"))
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


XML = '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
DRIVE = "<html><title>Google Drive - Virus scan warning</title>"
FOREIGN = [
    ("a.pt", POINTER, ["Git LFS pointer to 6,243,242 bytes", "git lfs pull"]),
    ("a.pt", POINTER.replace("\n", "\r\n"), ["Git LFS", "6,243,242"]),
    ("a.pt", "/annex/objects/MD5E-s1--x.pt\n", ["git annex get"]),
    ("a.pt", "outs:\n- md5: abc\n  path: a.pt\n", ["dvc pull"]),
    ("a.pt", "\ufeff\n <!DOCTYPE html>\n<html>", ["web page", "/resolve/"]),
    ("a.pt", DRIVE, ["Google Drive", "gdown"]),
    ("a.pt", DRIVE.replace("Virus", "Quota"), ["quota of downloads"]),
    ("a.pt", XML, ["storage server (AccessDenied)"]),
    ("a.pt", '{"error": "Repository not found"}', ["error of a server (JSON)"]),
    ("a.pt", "Entry not found", ["error of a server (Entry not found)"]),
    ("a.pt", "404: Not Found", ["404"]),
    ("a.pt", "", ["an empty file"]),
    ("a.pt", bytes(9000), ["nothing but zero bytes"]),
    ("a.pt", bytes(9000) + b"PK", ["begins with zero bytes"]),
    ("a.pt", torch_file()[:-300], ["without its end", "damaged or torn"]),
    ("a.pt.part", torch_file(), ["unfinished download"]),
    ("a.safetensors", torch_file(), ["torch.save", "rename it to a.pt"]),
    ("a.pt", save({"w": torch.ones(3)}), ["safetensors file", "rename it to a.safetensors"]),
    ("a.safetensors", save({"w": torch.ones(3)})[:20], ["damaged or torn"]),
    ("a.safetensors", torch_file(_use_new_zipfile_serialization=False), ["before 1.6"]),
    ("a.pt", gzip.compress(b"x", mtime=0), ["gzip", "unpack"]),
    ("a.pt", tar(), ["tar archive", "unpack"]),
    ("a.pt", zipped("best.pt"), ["zip archive", "unpack"]),
    ("a.pt", zipped("code/constants.pkl"), ["TorchScript"]),
    ("a.pt", numpy_archive(), ["NumPy arrays"]),
    ("a.pt", pickle.dumps({1: 2}), ["pickle that torch.save did not write"]),
    ("a.pt", b"\x08\x07\x12\x07pytorch\x1a\x05", ["ONNX", "exported from"]),
    ("a.pt", b"\x89HDF\r\n\x1a\n....", ["HDF5"]),
    ("a.pt", image("PNG"), ["PNG image"]),
    ("a.pt", b"%PDF-1.7", ["PDF"]),
    ("a.pt", "names: [a, b]\n", ["a text of 14 bytes", "names: [a, b]"]),
]


@pytest.mark.parametrize(("name", "content", "said"), FOREIGN, ids=range(len(FOREIGN)))
def test_it_says_what_weights_really_are(tmp_path: Path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = describe_foreign(path)
    for words in said:
        assert words in found
    assert str(tmp_path) not in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pt", torch_file(), "weights"),
        ("a.pt", torch_file(_use_new_zipfile_serialization=False), "weights"),
        ("a.safetensors", save({"w": torch.ones(3)}), "weights"),
        ("a.pt", b"\xd1\x02 noise \x00", "weights"),
        *[("a.jpg", image(k), "image") for k in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")],
        ("a.ppm", image("PPM"), "image"),
        ("a.mp4", b"\0\0\0\x20ftypisom", "video"),
        ("a.txt", b"", "annotations"),
        ("a.txt", b"0 .5 .5 .1 .1\n", "annotations"),
        ("a.json", b'{"images": [], "version": 1}', "annotations"),
        ("a.h5", b"\x89HDF\r\n\x1a\n....", "recording"),
        ("a.npz", numpy_archive(), "recording"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "onnx"),
    ],
)
def test_nothing_is_said_of_what_fits(tmp_path: Path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert describe_foreign(tmp_path / name, expected) is None


@pytest.mark.parametrize("expected", ["image", "annotations", "video", "recording", "onnx"])
def test_other_uses_have_the_same_words(tmp_path: Path, expected):
    path = tmp_path / "0.jpg"
    path.write_text(POINTER)
    assert "Git LFS pointer" in describe_foreign(path, expected)
    path.write_text("<html>")
    assert "web page" in describe_foreign(path, expected)
    path.write_bytes(torch_file())
    assert "torch.save" in describe_foreign(path, expected)


def test_what_is_no_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("no\nwhere")
    (tmp_path / "annex").symlink_to(".git/annex/objects/Zk/x")
    assert describe_foreign(tmp_path / "pipe") == "a named pipe, not a file"
    assert describe_foreign(tmp_path / "socket") == "a socket, not a file"
    assert describe_foreign("/dev/zero") == "a device, not a file"
    assert describe_foreign(tmp_path) == "a folder, not a file"
    assert describe_foreign(tmp_path / "loop") == "a link that leads back to itself"
    assert describe_foreign(tmp_path / "nowhere") == r"a link to 'no\nwhere', which is not there"
    assert "git annex get" in describe_foreign(tmp_path / "annex")
    assert describe_foreign(tmp_path / "absent") is None


def test_a_large_file_is_not_read(tmp_path: Path):
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        file.write(b"\x80\x04junk")
        file.truncate(2**40)
    assert "pickle" in describe_foreign(path)
