"""`python -m lightning_prune analyze` on real runs of a small classifier."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.cli import analyze
from lightning_prune.cli.analyze import main
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.penalties.group_norms import group_norms
from lightning_prune.report.figures import file_name
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.runs.configuration.run_facts import RunFacts
from tests.callbacks.classifiers import EXAMPLE, GROUPS, Classifier, trainer
from tests.plain_stages import plain

CLASS = f"{Classifier.__module__}.Classifier"
EPOCHS = 5


def keeper(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints", "{epoch}-{step}", save_top_k=-1, save_on_train_epoch_end=True
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regularization run with Lightning's own file names and a config as `train` writes it."""
    folder = tmp_path_factory.mktemp("run")
    logger = CSVLogger(folder, name="", version="")
    regularizer = ChannelRegularizer(reg=1.0, threshold=0.3)
    fit = trainer(
        folder, [regularizer, keeper(folder)], EPOCHS, logger=logger, enable_checkpointing=True
    )
    fit.fit(Classifier())
    last = max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    shutil.copy(last, folder / "checkpoints/last.ckpt")
    config = {
        "monitor": "val/accuracy",
        "model": {"_target_": CLASS},
        "pruning": {"regularizer": {"threshold": 0.3, "reg": 1.0, "layers": None}, "masker": None},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seal(folder / "config.yaml")  # as a run of this user does
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def result(run: Path) -> dict:
    return json.loads((run / "analysis/analysis.json").read_text())


def test_agrees_with_what_was_logged_live(run: Path, capsys: pytest.CaptureFixture[str]):
    main([str(run), "--wanted", "0.2"])
    found = result(run)
    facts = RunFacts.of(run)
    assert [row["epoch"] for row in found["epochs"]] == list(range(EPOCHS))
    assert found["threshold"] == 0.3
    for row in found["epochs"]:
        for key in ("low_channels", "mean_norm"):
            live = facts.metric(f"regularize/{key}")[row["epoch"]]
            assert row[key] == pytest.approx(live, rel=1e-5)
        assert row["metric"] == facts.metric("val/accuracy")[row["epoch"]]
    enough = [row for row in found["epochs"] if row["low_channels"] >= 0.2]
    assert found["start"] == enough[0]["epoch"]
    assert found["epochs"][-1]["also"] == ["last.ckpt"]
    out = capsys.readouterr().out
    assert f"Pruning can start from epoch {found['start'] + 1}" in out
    assert Path(enough[0]["file"]).is_file()
    figures = {path.name for path in (run / "analysis/figures").iterdir()}
    assert figures == {"overview.png", *(file_name(name) for name in GROUPS)}


def test_norms_are_those_of_the_files(run: Path):
    main([str(run), "--layers", GROUPS[2], "--no-figures", "--output", str(run / "elsewhere")])
    found = json.loads((run / "elsewhere/analysis.json").read_text())
    assert list(found["groups"]) == [GROUPS[2]]
    assert not (run / "elsewhere/figures").exists()
    for place, row in enumerate(found["epochs"]):
        module = Classifier.load_from_checkpoint(row["file"], weights_only=True)
        norms = group_norms(module, trace_groups(module, EXAMPLE))[GROUPS[2]]
        mean = found["groups"][GROUPS[2]]["mean_norm"][place]
        assert mean == pytest.approx(float(norms.mean()))


def test_wanted_follows_from_the_mac_target(run: Path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["pruning"]["masker"] = {"mac_target": 0.25}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    seal(run / "config.yaml")
    main([str(run), "--no-figures"])
    assert result(run)["wanted"] == 0.5


def test_the_command_for_a_detector_can_be_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # What counts as a detector; the command itself is that of any run of `train`.
    monkeypatch.setattr(analyze, "DetectorModule", Classifier)
    (run / ".hydra").mkdir()
    words = ["+experiment=x", "data=yolo_folder", "data.root='a b'"]
    (run / ".hydra/overrides.yaml").write_text(yaml.safe_dump(words))
    main(["run", "--wanted", "0.01", "--no-figures"])
    command = result(run)["command"]
    assert command in capsys.readouterr().out
    entry, given = shlex.split(command)[:2], shlex.split(command)[2:]
    assert entry == ["python", "train.py"]
    parsed = OverridesParser.create().parse_overrides(given)
    values = {override.key_or_group: override.value() for override in parsed}
    start = result(run)["start"]
    file = next(row["file"] for row in result(run)["epochs"] if row["epoch"] == start)
    assert "=" in Path(file).name  # a name that Hydra would misread without quotes
    assert str(values["model.weights"]).strip("'") == file
    assert values["pruning"] == "channel"
    assert values["pruning.regularizer.reg"] == 1.0
    assert str(values["data.root"]).strip("'") == "a b"


def test_files_of_later_phases_and_damaged_ones(run: Path, capsys: pytest.CaptureFixture[str]):
    later = run / "later"
    stages = [plain(ChannelMasker, start_epoch=0, end_epoch=1, pruning_ratio=0.5), PhysicalPruner()]
    fit = trainer(later, [*stages, keeper(later)], 4, enable_checkpointing=True)
    fit.fit(Classifier())
    for path in (later / "checkpoints").glob("*.ckpt"):
        shutil.copy(path, run / "checkpoints" / f"pruned_{path.name}")
    files = sorted((run / "checkpoints").glob("epoch*.ckpt"))
    files[1].write_bytes(files[1].read_bytes()[:300])
    content = torch.load(files[2], weights_only=True)
    content["state_dict"]["net.head.weight"][0] = float("inf")
    torch.save(content, files[2])
    main([str(run), "--no-figures"])
    skipped = result(run)["skipped"]
    reasons = {name: skipped.pop(name) for name in (files[1].name, files[2].name)}
    assert "damaged" in reasons[files[1].name]
    assert "net.head.weight holds NaN or infinity" in reasons[files[2].name]
    assert len(skipped) == 4
    assert sum("masked" in reason for reason in skipped.values()) >= 1
    assert sum("other shapes" in reason for reason in skipped.values()) >= 1
    assert len(result(run)["epochs"]) == EPOCHS - 2
    err = capsys.readouterr().err
    assert all(f"{name} is left out" in err for name in reasons)


def test_several_runs(run: Path, capsys: pytest.CaptureFixture[str]):
    sweep = run.parent / "sweep"
    for name in ("0", "1", "10", "2"):
        shutil.copytree(run, sweep / name)
    (sweep / "1/.hydra").mkdir()
    (sweep / "1/.hydra/overrides.yaml").write_text("- pruning.regularizer.reg=1\n")
    shutil.rmtree(sweep / "2/checkpoints")
    (sweep / "10/config.yaml").write_text("model: {_target_: nowhere.Net}")
    main([str(sweep)])
    streams = capsys.readouterr()
    assert "10 is left out: " in streams.err
    assert "names the class nowhere.Net, and you did not write it" in streams.err
    runs = json.loads((sweep / "analysis/analysis.json").read_text())["runs"]
    assert list(runs) == ["0", "1 pruning.regularizer.reg=1"]
    assert runs["0"]["epochs"][0]["mean_norm"] == result(sweep / "0")["epochs"][0]["mean_norm"]
    assert (sweep / "analysis/comparison.png").is_file()
    assert "1 pruning.regularizer.reg=1" in streams.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["empty"], "no \\*.ckpt in empty"),
        (["single"], r"1 epoch \(epoch \d: .*\): at least 2 are needed; callbacks=every_epoch"),
        (["torn"], "(?s)no usable checkpoint in torn.*a.ckpt is left out: .*damaged"),
        (["run", "--class", "nowhere.Net"], "class 'nowhere.Net' was not found"),
        (["run", "--layers", "net.stem.9"], "did you mean 'net.stem.0'"),
        (["run", "--threshold", "1.5"], r"threshold=1.5: pass a number in \(0, 1\)"),
        (["run", "--wanted", "0"], r"wanted=0.0: pass a number in \(0, 1\)"),
    ],
)
def test_refusals(words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]):
    Path("empty").mkdir()
    Path("torn").mkdir()
    Path("torn/a.ckpt").write_bytes(b"PK")
    shutil.copytree(run, "single")
    for path in sorted(Path("single/checkpoints").glob("*.ckpt"))[1:]:
        path.unlink()
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert re.search(message, capsys.readouterr().err)
    assert not (run / "analysis").exists()
