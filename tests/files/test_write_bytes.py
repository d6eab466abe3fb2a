import os
import stat

import pytest

from lightning_prune.files import write_bytes


def test_a_reader_never_sees_a_part(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_bytes(path, b"old")
    seen = []
    replace = os.replace

    def look(source, target):
        seen.append((path.read_bytes(), source.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_bytes(path, b"new")
    assert seen == [(b"old", b"new")]
    assert path.read_bytes() == b"new"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "ours", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_permissions_of_the_old_file_stay_on_demand(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chmod(path, 0o604)
    write_bytes(path, b"new", keep_mode=True)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent", b"", keep_mode=True)
    assert os.listdir(tmp_path) == ["file"]
