"""Old names of arguments are answered with the new ones, and understood in old run folders."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import OmegaConf

from lightning_prune.cli.check import check_config
from lightning_prune.cli.composition import composition_message
from lightning_prune.cli.loader import make_loader
from lightning_prune.errors import ConfigError
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.runs.configuration.renamed_keys import (
    RENAMED,
    renamed_key,
    translated,
    translated_words,
)
from lightning_prune.runs.configuration.run_facts import RunFacts
from lightning_prune.runs.resume.resume_command import resume_arguments
from tests.conf.mutations import nodes
from tests.conf.test_conf import composed
from tests.conf.test_mutations import base

MASKER = "lightning_prune.callbacks.channel_masker.ChannelMasker"
WIDTHS = "lightning_prune.pruners.fast_widths.FastWidths"  # where it stood
OLD: dict[str, Any] = {
    "pruning": {
        "masker": {
            "_target_": MASKER,
            "max_pruning_ratio": 0.75,
            "fast_widths": {"_target_": WIDTHS, "moved": 2.0, "reach": 0.25, "vector": 8},
        },
        "mine": {"_target_": "mine.Masker", "max_pruning_ratio": 0.75},
    },
    "seed": 0,
}
NEW: dict[str, Any] = {
    "pruning": {
        "masker": {
            "_target_": MASKER,
            "keep_range": [0.25, 1.0],
            "fast_widths": {
                "_target_": "lightning_prune.policies.selection.fast_widths.FastWidths",
                "memory_cost": 2.0, "max_shift": 0.25, "vector": 8
            },
        },
        "mine": OLD["pruning"]["mine"],
    },
    "seed": 0,
}  # fmt: skip


def test_the_table_leads_from_what_is_gone_to_what_is_there():
    ours = list(nodes(OmegaConf.to_container(base("pruning=channel"), resolve=False)))
    targets = {str(node["_target_"]).rpartition(".")[2]: str(node["_target_"]) for node in ours}
    for name, keys in RENAMED.items():
        parameters = inspect.signature(get_object(targets[name])).parameters
        for old, renamed in keys.items():
            assert old not in parameters
            assert renamed.new in parameters
            assert renamed_key(targets[name], old) is renamed
            assert renamed_key(f"mine.{name}", old) is None


def test_an_old_configuration_is_read_with_the_new_names():
    assert translated(OLD) == NEW
    assert translated(NEW) == NEW


def test_old_overrides_are_given_with_the_new_names():
    words = [
        "pruning.masker.max_pruning_ratio=0.75",
        "+pruning.masker.fast_widths.reach=0.25",
        "pruning.mine.max_pruning_ratio=0.75",
        "pruning.masker.max_pruning_ratio=abc",
        "~pruning.mine",
        "seed=1",
    ]
    assert translated_words(words, OLD) == [
        "pruning.masker.keep_range=[0.25,1.0]",
        "+pruning.masker.fast_widths.max_shift=0.25",
        *words[2:],
    ]


@pytest.mark.parametrize(
    ("word", "typed"),
    [
        ("masker.max_pruning_ratio=0.8", "masker.keep_range=[0.2,1.0]"),
        ("masker.max_pruning_ratio=abc", "masker.keep_range=VALUE"),
        ("masker.fast_widths.reach=0.25", "masker.fast_widths.max_shift=0.25"),
    ],
)
def test_the_command_line_answers_with_the_new_name(word: str, typed: str):
    words = ["+pruning=channel", f"pruning.{word}"]
    with pytest.raises(Exception, match="Could not override") as caught:
        make_loader().load_configuration("train", words, RunMode.RUN)
    old, new = (one.partition("=")[0] for one in (word, typed))
    assert composition_message(caught.value, words) == (
        f"pruning.{old} is pruning.{new} now: type pruning.{typed}"
    )


def test_a_recipe_of_ones_own_is_answered_too(tmp_path: Path):
    words = ["+pruning=channel", "+pruning.masker.max_pruning_ratio=0.8", f"output_dir={tmp_path}"]
    with pytest.raises(ConfigError) as caught:
        check_config(composed(*words, "model.num_classes=10"))
    assert str(caught.value) == (
        "pruning.masker.max_pruning_ratio is pruning.masker.keep_range now: type "
        "pruning.masker.keep_range=[0.2,1.0]"
    )


def test_an_old_run_goes_on_and_is_read(tmp_path: Path):
    OmegaConf.save(OmegaConf.create(OLD), tmp_path / "config.yaml")
    words = ["+pruning=channel", "pruning.masker.max_pruning_ratio=0.75"]
    command = {"task": words, "hydra": [], "cwd": str(Path.cwd()), "config_dir": None}
    (tmp_path / "command.json").write_text(json.dumps(command))
    seal(tmp_path / "command.json")
    assert resume_arguments([f"resume={tmp_path}"])[:2] == [
        "+pruning=channel",
        "pruning.masker.keep_range=[0.25,1.0]",
    ]
    facts = RunFacts.of(tmp_path)
    assert facts.config == NEW
    assert facts.get("pruning.masker.keep_range") == [0.25, 1.0]
