import os
from pathlib import Path

import pytest

from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_text import read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_followed(tmp_path: Path, encoding):
    (tmp_path / "a.txt").write_text("Käse\n", encoding=encoding)
    assert read_text(tmp_path / "a.txt") == "Käse\n"


def test_what_is_no_text_is_refused_by_its_name(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(FileError, match=r"a\.txt: a Git LFS pointer to 9 bytes"):
        read_text(path)
    path.write_bytes(b"K\xe4se, but in Latin-1")
    with pytest.raises(FileError, match=r"no text in UTF-8 \(byte 1\)"):
        read_text(path)
    path.write_bytes(b"x" * 11)
    assert read_text(path, 11) == "x" * 11
    with pytest.raises(FileError, match="more than"):
        read_text(path, 10)
    with pytest.raises(FileError, match="a folder, not a file"):
        read_text(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="a named pipe"):
        read_text(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")


def test_a_name_with_line_breaks_stays_in_one_line(tmp_path: Path):
    path = tmp_path / "a\nb\x1b[2J.txt"
    path.write_bytes(b"\xff\xff")
    with pytest.raises(FileError) as caught:
        read_text(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert r"a\nb\x1b[2J.txt" in str(caught.value)
    assert caught.value.path == path
