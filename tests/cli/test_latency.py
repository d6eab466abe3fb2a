"""`python -m lightning_prune latency`: a table here, and one by way of a folder."""

import json
import subprocess
import sys

import pytest

from lightning_prune.cli.latency import main
from lightning_prune.latency.table import LatencyTable
from tests.callbacks.classifiers import Classifier, trainer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASS = ["--class", "tests.callbacks.classifiers.Classifier", "--plans", "3"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = Classifier()
    run = trainer(folder, [], 1, limit_train_batches=1)
    run.fit(model)
    run.save_checkpoint(folder / "dense.ckpt")
    return str(folder / "dense.ckpt")


def test_a_table_of_this_machine_and_how_far_it_is_off(checkpoint, tmp_path, capsys):
    output = tmp_path / "latency.json"
    main([checkpoint, *CLASS, "--output", str(output), "--check", "2"])
    said = capsys.readouterr().out
    table = LatencyTable.of_content(json.loads(output.read_text()), "file")
    assert table.digest in said
    assert "2 fresh networks: off by" in said
    assert set(table.layers) == {
        "net.stem.0", "net.inner.0", "net.outer.0", "net.deep.0", "net.head",
    }  # fmt: skip


def test_by_way_of_a_folder(checkpoint, tmp_path, capsys):
    box, output = tmp_path / "box", tmp_path / "latency.json"
    main([checkpoint, *CLASS, "--bundle", str(box)])
    assert "run `python measure.py` there" in capsys.readouterr().out
    assert not output.exists()
    subprocess.run(
        [sys.executable, "measure.py", "--rounds", "2"],
        cwd=box, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    main([checkpoint, *CLASS, "--read", str(box), "--output", str(output)])
    content = json.loads(output.read_text())
    assert content["dense"] == json.loads((box / "times.json").read_text())["whole"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "0"], "--threads 0: pass at least 1"),
        (["--plans", "2"], "--plans 2: pass at least 3"),
        (["--bundle", "a", "--read", "b"], "pass one of them"),
        (["--read", "a", "--check", "2"], "--check times networks here"),
        (["--read", "nowhere"], "job.json: there is no such file"),
        (["--output", "nowhere/latency.json"], "there is no folder nowhere"),
    ],
)
def test_what_is_wrong_is_one_sentence(checkpoint, words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([checkpoint, *CLASS, *words])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_missing_checkpoint_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.ckpt")])
    assert "no checkpoint at" in capsys.readouterr().err
