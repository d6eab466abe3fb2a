"""Command lines as people type them: understood, or answered with what to type instead."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_prune.cli.command_line import config_dir, split_options, understood
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.config_folder import config_folder

DATA = ", ".join(sorted(path.stem for path in (config_folder() / "data").glob("*.yaml")))
UNDERSTOOD = [
    ("pruning=channel", ["+pruning=channel"]),
    ("+pruning=channel", ["+pruning=channel"]),
    ("-m pruning=channel,slice", ["-m", "+pruning=channel,slice"]),
    ("pruning=[channel,slice]", ["+pruning=[channel,slice]"]),
    ("pruning=none seed=1", ["seed=1"]),
    ("experiment=digits_quick", ["+experiment=digits_quick"]),
    # The experiment brings a recipe: another one replaces it, none deletes it.
    (
        "experiment=regularization_strengths pruning=slice",
        ["+experiment=regularization_strengths", "pruning=slice"],
    ),
    (
        "+experiment=regularization_strengths pruning=none",
        ["+experiment=regularization_strengths", "~pruning"],
    ),
    ("+callbacks=none", ["callbacks=none"]),
    ("+seed=3 +trainer.max_epochs=4", ["seed=3", "trainer.max_epochs=4"]),
    ("+trainer.fast_dev_run=true", ["+trainer.fast_dev_run=true"]),
    ("seed=1 -m model.lr=1,2 --config-dir=/tmp", ["-m", "--config-dir=/tmp", "seed=1",
                                                 "model.lr=1,2"]),
    ("ckpt_path=runs/epoch=3-step=40.ckpt", ["ckpt_path='runs/epoch=3-step=40.ckpt'"]),
    ("model.weights=~/best.pt", [f"model.weights={Path('~/best.pt').expanduser()}"]),
    ("model.weights=C:\\new\\best.pt", ["model.weights=C:\\new\\best.pt"]),
    ("--shell-completion install=bash", ["--shell-completion", "install=bash"]),
    ("pruning=sequential_activation criterion=fpgm",
     ["+pruning=sequential_activation", "criterion=fpgm"]),
]  # fmt: skip
REFUSED = [
    ("callbacks=true", "'callbacks' is chosen by name. Allowed: default, every_epoch, none"),
    ("data=5", f"Allowed: {DATA}"),
    ("data=", f"Allowed: {DATA}"),
    ("+pruning=1", "Allowed: bn_scale, channel, "),
    ("pruning=true", "Allowed: bn_scale, channel, "),
    ("pruning=chanel", "Did you mean pruning=channel"),
    ("logger=[csv,tb]", "'logger' is chosen by name"),
    ("callbacks=null", "Did you mean callbacks=none?"),
    ("-m trainer=cpu,gpuu", "Did you mean trainer=gpu?"),
    ("hydra/launcher=true", "Allowed: basic, joblib"),
    ("mac_target=0.5", "Did you mean pruning.masker.mac_target? (with a recipe, such as"),
    ("+pruning=channel mac_target=0.5", "Did you mean pruning.masker.mac_target?"),
    ("+pruning=channel Mac-Target=0.5", "Did you mean pruning.masker.mac_target?"),
    ("+pruning=channel --mac_target 0.5", "typed without dashes, pruning.masker.mac_target=0.5"),
    ("+pruning=channel --mac-target=0.5", "typed without dashes, pruning.masker.mac_target=0.5"),
    ("--epochs 50", "typed without dashes, dense_epochs=50"),
    ("Trainer.max_epochs=3", "Did you mean trainer.max_epochs?"),
    ("lr=0.1", "Did you mean model.lr?"),
    ("imgsz=640", "Did you mean data.image_size or model.image_size?"),
    ("seed", "'seed' has no value: type seed=VALUE"),
    ("=3", "an override is KEY=VALUE"),
    ("pruning.masker.layers=[a,b", "pruning.masker.layers=['first','second']"),
    ("zzz=3", "zzz is not known to the command line. Allowed: augmentation, callbacks"),
]


@pytest.mark.parametrize(("line", "words"), UNDERSTOOD, ids=[line for line, _ in UNDERSTOOD])
def test_what_is_meant_is_understood_and_stays_as_it_is_then(line: str, words: list[str]):
    assert understood(line.split()) == words
    assert understood(words) == words


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refusals_say_what_to_type(line: str, message: str):
    with pytest.raises(ConfigError) as refused:
        understood(line.split())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("data.root=/data/my data (v2)", "data.root='/data/my data (v2)'"),
        ("data.root=/données/été", "data.root='/données/été'"),
        ("data.root=it's", r"data.root='it\'s'"),
        ("data.root=/a;b", "data.root='/a;b'"),
    ],
)
def test_a_path_is_put_into_quotes_and_that_is_said(
    word: str, read: str, capsys: pytest.CaptureFixture[str]
):
    assert understood([word]) == [read]
    assert "is read with quotes" in capsys.readouterr().err


def test_every_unknown_key_is_named():
    with pytest.raises(ConfigError, match=r"modle\.lr .*model\.lr\?\nbatchsize .*data\.batch_size"):
        understood(["modle.lr=1", "seed=1", "batchsize=3"])


def test_groups_of_the_user_are_known(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("a: 1\n")
    options = ["--config-dir", str(tmp_path)]
    assert understood([*options, "+mine=one"]) == [*options, "+mine=one"]
    with pytest.raises(ConfigError, match=r"'mine' is chosen by name.*Allowed: one"):
        understood([*options, "+mine=two"])
    with pytest.raises(ConfigError, match="mine is not known"):
        understood(["+mine=one"])


def test_options_and_words_are_told_apart():
    words = ["-cd", "a", "seed=1", "--info", "defaults", "-m", "x=2", "--multi", "~logger"]
    options = ["-cd", "a", "--info", "defaults", "-m", "--multi"]
    assert split_options(words) == (options, ["seed=1", "x=2", "~logger"])
    assert config_dir(["-m", "-cd", "a"]) == "a"
    assert config_dir(["--config-dir=b"]) == "b"
    assert config_dir(["-m"]) is None


@pytest.mark.parametrize(
    "words", [["train", "--help"], ["layers", "-h"], ["analyze", "--help"], ["--version"]]
)
def test_help_needs_nothing_that_trains(words: list[str]):
    # Seconds of processor time go into the import of these.
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['lightning_prune', *{words!r}]\n"
        "try:\n    runpy.run_module('lightning_prune', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
