"""A folder from elsewhere is built from shipped classes only, unless its user trusts it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.consent import check_class_of, check_targets_of
from lightning_prune.runs.configuration.folder_seal import SEALS, is_sealed, seal
from lightning_prune.runs.resume.resume_command import resume_arguments
from lightning_prune.runs.resume.run_command import COMMAND, RunCommand


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def command(folder: Path, *task: str, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"task": list(task), "hydra": [], "cwd": str(Path.cwd()), "config_dir": None}
    (folder / COMMAND).write_text(json.dumps(content | changes))
    return folder


EVIL = "+callbacks.zz={_target_:torch.load,f:evil.pt,weights_only:false}"
REFUSED = {
    "function": ([EVIL], "callbacks.zz._target_=torch.load"),
    "builtin": (["+x={_target_:builtins.exec}"], "x._target_=builtins.exec"),
    "way to any function": (["+x={_target_:hydra.utils.get_method,path:os.system}"], "get_method"),
    "in an argument": (
        ["+callbacks.x={_target_:lightning.pytorch.callbacks.LambdaCallback,"
         "on_fit_start:{_target_:builtins.exec,_partial_:true}}"],
        "callbacks.x.on_fit_start._target_=builtins.exec",
    ),
    "in a list": (["+x=[{_target_:os.system}]"], "x[0]._target_=os.system"),
    "own class": (["+callbacks.x._target_=mine.Callback"], "callbacks.x._target_=mine.Callback"),
    "shipped function": (["+x._target_=lightning_prune.cli.train.main"], "cli.train.main"),
    "shipped class that writes": (["+x._target_=lightning_prune.files.part_file.PartFile"], "Part"),
    "function seen through another module": (
        ["+x._target_=lightning.pytorch.trainer.trainer.os.system"], "os.system",
    ),
    "logger with an address": (["+x._target_=lightning.pytorch.loggers.MLFlowLogger"], "MLFlow"),
    "reference": (["model._target_=${seed}"], "model._target_=${seed}"),
    "resolver": (["+x=${oc.env:HOME}"], "calls a resolver"),
    "resolver in a resolver": (["+x='${add:${oc.env:HOME},1}'"], "calls a resolver"),
    "setting of Hydra": (["hydra.job.name=x"], "a setting of Hydra itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_run_code_is_refused_and_named(name: str, tmp_path: Path) -> None:
    words, told = REFUSED[name]
    folder = command(tmp_path / "run", *words)
    with pytest.raises(ConfigError, match="add trust=true") as found:
        resume_arguments([f"resume={folder}"])
    assert told in str(found.value)


def test_settings_of_hydra_and_folders_of_configurations_are_refused(tmp_path: Path) -> None:
    folder = command(tmp_path / "a", hydra=["hydra.searchpath=[pkg://mine]"])
    with pytest.raises(ConfigError, match=r"hydra\.searchpath=\[pkg://mine\]: a setting of Hydra"):
        resume_arguments([f"resume={folder}"])
    folder = command(tmp_path / "b", config_dir="/elsewhere")
    with pytest.raises(ConfigError, match="--config-dir /elsewhere"):
        resume_arguments([f"resume={folder}"])


def test_a_configuration_file_that_was_sent_along_sets_nothing_of_hydra(tmp_path: Path) -> None:
    text = "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.getcwd\n"
    folder = command(tmp_path / "run", "+data@_global_=" + "../" * 20 + str(tmp_path)[1:] + "/evil")
    (tmp_path / "evil.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"hydra\.callbacks: a setting of Hydra itself"):
        resume_arguments([f"resume={folder}"])


def test_shipped_recipes_need_no_consent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "+pruning=channel", "callbacks=every_epoch",
        "+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler",
        "pruning.masker.start_epoch='${add:${dense_epochs},1}'",
    ]  # fmt: skip
    folder = command(tmp_path / "run", *words)
    assert resume_arguments([f"resume={folder}"])[: len(words)] == words
    assert (
        f"{folder} was recorded elsewhere, with this command: +pruning" in capsys.readouterr().out
    )


def test_consent_is_given_by_a_word_and_kept(tmp_path: Path) -> None:
    folder = command(tmp_path / "run", EVIL)
    with pytest.raises(ConfigError, match="trust=perhaps is not allowed"):
        resume_arguments([f"resume={folder}", "trust=perhaps"])
    assert resume_arguments([f"resume={folder}", "trust=true"])[0] == EVIL
    found = RunCommand.read(folder)
    assert found is not None
    found.keep(folder)  # as the run does when it begins
    assert resume_arguments([f"resume={folder}"])[0] == EVIL
    shutil.copytree(folder, tmp_path / "copy")
    assert resume_arguments([f"resume={tmp_path / 'copy'}"])[0] == EVIL


def test_a_folder_cannot_consent_to_itself(tmp_path: Path) -> None:
    folder = command(tmp_path / "run", EVIL, "trust=true", "+trust=true")
    (folder / SEALS).write_text(json.dumps({COMMAND: "0" * 64}))
    with pytest.raises(ConfigError):
        resume_arguments([f"resume={folder}"])


def test_what_was_changed_since_is_not_its_users_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = command(tmp_path / "run", "seed=1")
    seal(folder / COMMAND)
    assert is_sealed(folder / COMMAND)
    command(folder, "seed=2")
    assert not is_sealed(folder / COMMAND)
    seal(folder / COMMAND)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    assert not is_sealed(folder / COMMAND)


def test_a_home_that_cannot_be_written_seals_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    folder = command(tmp_path / "run")
    seal(folder / COMMAND)
    assert not is_sealed(folder / COMMAND)


def test_classes_that_a_configuration_names(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {_target_: mine.Module}")
    shipped = "lightning_prune.detection.module.DetectionModule"
    assert check_class_of(config, shipped) == shipped
    with pytest.raises(ConfigError, match=r"pass --class mine\.Module"):
        check_class_of(config, "mine.Module")
    with pytest.raises(ConfigError, match=r"names os\.system"):
        check_targets_of(config, {"_target_": "os.system"})
    seal(config)
    assert check_class_of(config, "mine.Module") == "mine.Module"
    check_targets_of(config, {"_target_": "os.system"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "holds a list"),
        ("{", "damaged or of another version"),
        ('{"task": []}', "no hydra and no cwd"),
        ('{"task": "a=1", "hydra": [], "cwd": "", "config_dir": null}', "task is no list of words"),
        ('{"task": [1], "hydra": [], "cwd": "", "config_dir": null}', "task is no list of words"),
        ('{"task": [], "hydra": [], "cwd": 1, "config_dir": null}', "is no text"),
        ('{"task": ["--experimental-rerun=x.pickle"], "hydra": [], "cwd": "", "config_dir": null}',
         "no override"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_used_is_one_sentence(
    text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / COMMAND).write_text(text)
    with pytest.raises(ConfigError, match=f"cannot be used .*{told}|{told}"):
        RunCommand.read(tmp_path)


def test_a_command_of_a_later_version_is_understood_as_far_as_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(tmp_path, "seed=1", devices=2)
    found = RunCommand.read(tmp_path)
    assert found is not None
    assert found.task == ["seed=1"]
    assert "devices in it has no meaning here" in capsys.readouterr().out
