"""Small files that may be missing or torn."""

from pathlib import Path

from lightning_prune.files.read_json import read_json


def test_what_cannot_be_read_is_none(tmp_path: Path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    for text, content in {'{"a": 1}': {"a": 1}, '{"a": ': None, "[1]": None, "": None}.items():
        path.write_text(text)
        assert read_json(path) == content
