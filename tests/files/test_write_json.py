import json
import os

import pytest

from lightning_prune.files.write_json import write_json


def test_json_is_written_whole_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "report.json"
    write_json(path, {"x": 1, "y": [None, "ö"]})
    assert json.loads(path.read_text()) == {"x": 1, "y": [None, "ö"]}
    assert path.read_text().endswith("}\n")
    assert os.listdir(path.parent) == ["report.json"]


def test_the_old_file_survives_a_failure(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_json(path, {"run": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"run": float("nan")})

    def full(_descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"run": 2})
    assert json.loads(path.read_text()) == {"run": 1}
    assert os.listdir(tmp_path) == ["report.json"]
