import hashlib
import os
from pathlib import Path

import pytest

from lightning_prune.files.part_file import PartFile


def test_the_target_changes_at_commit_only(tmp_path: Path):
    target = tmp_path / "new" / "a"
    with PartFile(target, digest=True) as part:
        part.write(b"one ")
        part.write(memoryview(b"two"))
        assert not target.exists()
        part.commit()
        assert target.read_bytes() == b"one two"
        assert part.size == 7
        assert part.hexdigest() == hashlib.sha256(b"one two").hexdigest()
    with PartFile(target) as part:
        part.write(b"thrown away")
    with pytest.raises(TypeError), PartFile(target) as part:
        part.write("no bytes")
    assert target.read_bytes() == b"one two"
    assert os.listdir(target.parent) == ["a"]


def test_a_new_part_that_was_taken_for_a_stale_one_is_made_again(tmp_path: Path, monkeypatch):
    original, removed = Path.open, []

    def too_late(self, *arguments, **options):
        file = original(self, *arguments, **options)
        if not removed:
            removed.append(self)
            self.unlink()  # between open and lock
        return file

    monkeypatch.setattr(Path, "open", too_late)
    with PartFile(tmp_path / "a") as part:
        part.write(b"x")
        part.commit()
    assert part.path != removed[0]
    assert os.listdir(tmp_path) == ["a"]


def test_clearing_needs_no_folder(tmp_path: Path):
    assert PartFile.clear_stale(tmp_path / "absent" / "a") == []
    stale = tmp_path / f"a.{'f' * 32}.part"
    stale.touch()
    assert PartFile.clear_stale(tmp_path / "b") == []
    assert PartFile.clear_stale(tmp_path / "a") == [stale]
