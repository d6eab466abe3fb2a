import json
from pathlib import Path

import pytest

from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_json import read_json
from lightning_prune.files.read_json_text import read_json_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("9" * 5000, "digits"),
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' stands twice"),
        ('{"a": 1,\n}', "no JSON: line 2"),
        ("<html>", "web page"),
        ('{"message": "Not Found"}', "error of a server"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        read_json_text(path)
    assert read_json(path) is None


def test_ordinary_files_are_read(tmp_path: Path):
    path = tmp_path / "a.json"
    content = {"a": [1, 2.5, None, True, {"b": "ü"}], "n": 10**400}
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_json_text(path) == content
    assert read_json(path) == content
    path.write_text('{"a": 1, "a": 2}')
    assert read_json_text(path, strict=False) == {"a": 2}
    path.write_text("[NaN]")
    assert str(read_json_text(path)) == "[nan]"
    assert read_json(path) is None
    assert read_json(tmp_path / "absent") is None
    assert read_json(tmp_path) is None
