"""pruning_config.json: every key of the seed, and an error for everything else."""

import json
import os
import re

import pytest

from lightning_prune.loop.pruning_config import PruningConfig
from tests.loop.plain import CHANNEL, OFF, SLICE, state_in, write

EVERY_CHANNEL_KEY = {
    "is_prune": True, "global_pruning": True, "block_size": 8, "start_epoch": 10, "end_epoch": 60,
    "epoch_rate": 5, "global_prune_rate": 1.0, "max_pruning_rate": 0.9, "mac_target": 0.7,
    "reach_mac_target": False, "log_str": "", "pruning_method": "MACAwareImportance",
    "prune_channels_at_init": False, "infer": False, "isomorphic": False,
    "regularize": {"reg": 5e-3, "mac_reg": 0, "gamma": 1},
    "MAC_params": {"use_macs": True, "type": "Sum", "alpha": 0.9, "beta": 2},
    "layers": ["layer1.conv1"], "input_shape": [[1, 3, 8, 8], [1, 4]], "container": "tuple",
}  # fmt: skip
EVERY_SLICE_KEY = {
    "is_prune": True, "block_size": 8, "start_epoch": 0, "end_epoch": 10, "epoch_rate": 1,
    "prune_rate": 0.5, "pruning_gradually": True, "pruning_mode": "Prune",
    "disable_first_index": False, "pruning_method": "L2_norm", "reg": 1e-5,
}  # fmt: skip


def test_the_lists_above_are_the_seeds_tables(shared):
    text = (shared / "seeds/channel_and_slice_pruning.md").read_text()
    channel, slices = text.split("### Slice Pruning Parameters")
    channel = channel.split("### Channel Pruning Parameters")[1]
    nested = [name for part in ("regularize", "MAC_params") for name in EVERY_CHANNEL_KEY[part]]
    assert re.findall(r"^- \*\*(\w+)\*\*", channel, re.MULTILINE) == [
        *(name for name in EVERY_CHANNEL_KEY)
    ]
    assert re.findall(r"^  - \*\*(\w+)\*\*", channel, re.MULTILINE) == nested
    slices = slices.split("## Future")[0]
    assert re.findall(r"^- \*\*(\w+)\*\*", slices, re.MULTILINE) == [*EVERY_SLICE_KEY]


def test_every_key_is_read(tmp_path):
    config = PruningConfig.read(write(tmp_path, EVERY_CHANNEL_KEY, EVERY_SLICE_KEY))
    for name, value in EVERY_CHANNEL_KEY.items():
        found = getattr(config.channel, name)
        assert (vars(found) if isinstance(value, dict) else found) == value
    for name, value in EVERY_SLICE_KEY.items():
        assert getattr(config.slice, name) == value


def test_a_single_shape_and_defaults(tmp_path):
    config = PruningConfig.read(write(tmp_path, CHANNEL, SLICE))
    assert config.channel.input_shapes == [[1, 3, 8, 8]]
    assert (config.channel.epoch_rate, config.channel.global_pruning) == (1, True)
    assert (config.slice.reg, config.slice.norm) == (0.0, 2)


def test_what_is_off_is_absent(tmp_path):
    config = PruningConfig.read(write(tmp_path))
    assert config.channel is None
    assert config.slice is None


CHANNEL_ERRORS = [
    ({"start_epoc": 3}, r"channel_sparsity_args\.start_epoc is no known key.*start_epoch"),
    ({"verbose": 0}, r"\.verbose is no known key: allowed are is_prune, "),
    ({"is_prune": 1}, r"\.is_prune=1: pass true or false"),
    ({"start_epoch": True}, r"\.start_epoch=true: pass an integer of at least 0"),
    ({"start_epoch": 1.0}, r"\.start_epoch=1\.0: pass an integer"),
    ({"start_epoch": -1}, r"\.start_epoch=-1"),
    ({"end_epoch": 1}, r"channel_sparsity_args: end_epoch=1 leaves no epoch"),
    ({"epoch_rate": 0}, r"\.epoch_rate=0: pass an integer of at least 1"),
    ({"block_size": 0}, r"\.block_size=0"),
    ({"global_prune_rate": 1.5}, r"\.global_prune_rate=1\.5: pass a number in \(0, 1\]"),
    ({"max_pruning_rate": 0}, r"\.max_pruning_rate=0"),
    ({"mac_target": 1}, r"\.mac_target=1: pass a number in \(0, 1\)"),
    ({"mac_target": "0.7"}, r"\.mac_target='0\.7'"),
    ({"reach_mac_target": "no"}, r"\.reach_mac_target='no'"),
    ({"log_str": None}, r"\.log_str=null: pass text"),
    ({"pruning_method": "GroupNorm"}, r"\.pruning_method='GroupNorm': pass 'GroupNormPruner', '"),
    ({"prune_channels_at_init": None}, r"\.prune_channels_at_init=null"),
    ({"infer": "false"}, r"\.infer='false'"),
    ({"isomorphic": 0}, r"\.isomorphic=0"),
    ({"regularize": 5e-3}, r"\.regularize=0\.005: pass a mapping"),
    ({"regularize": {"reg": -1}}, r"\.regularize\.reg=-1: pass a number of at least 0"),
    ({"regularize": {"rag": 1}}, r"\.regularize\.rag is no known key: did you mean reg"),
    ({"MAC_params": {"type": "Max"}}, r"\.MAC_params\.type='Max': pass 'Sum' or 'Mul'"),
    ({"MAC_params": {"alpha": 2}}, r"\.MAC_params\.alpha=2: pass a number in \[0, 1\]"),
    ({"MAC_params": {"beta": 0}}, r"\.MAC_params\.beta=0: pass a number above 0"),
    ({"layers": "conv1"}, r"\.layers='conv1': pass a list of texts or null"),
    ({"input_shape": [1, "3"]}, r"\.input_shape=\[1, '3'\]: pass a shape such as"),
    ({"input_shape": []}, r"\.input_shape=\[\]"),
    ({"input_shape": [[1, 3], 4]}, r"\.input_shape="),
    ({"container": "dict"}, r"\.container='dict': pass 'list' or 'tuple'"),
    ({"fast_widths": True}, r"\.fast_widths=true: pass a mapping"),
    ({"fast_widths": {"vector": 0}}, r"\.fast_widths\.vector=0: pass an integer of at least 1"),
    ({"fast_widths": {"max_shift": 2}}, r"\.fast_widths\.max_shift=2: pass a number in \(0, 1\]"),
    ({"fast_widths": {"vectors": 8}}, r"\.fast_widths\.vectors is no known key: did you mean vec"),
    ({"global_prune_rate": None}, "one of mac_target .* and global_prune_rate"),
]


@pytest.mark.parametrize(("keys", "message"), CHANNEL_ERRORS)
def test_channel_errors_name_the_key(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message) as caught:
        PruningConfig.read(write(tmp_path, CHANNEL | keys))
    assert str(tmp_path / "pruning_config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prune_rate": 0}, r"slice_sparsity_args\.prune_rate=0"),
        ({"block_size": "8"}, r"slice_sparsity_args\.block_size='8'"),
        ({"pruning_mode": "prune"}, r"\.pruning_mode='prune': pass 'Prune' or 'Unprune'"),
        ({"pruning_method": "L3"}, r"\.pruning_method='L3': pass 'L2_norm' or 'L1_norm'"),
        ({"pruning_gradually": "yes"}, r"\.pruning_gradually='yes'"),
        ({"disable_first_index": 1}, r"\.disable_first_index=1"),
        ({"reg": -0.1}, r"\.reg=-0\.1"),
        ({"end_epoch": 1}, "slice_sparsity_args: end_epoch=1"),
    ],
)
def test_slice_errors_name_the_key(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        PruningConfig.read(write(tmp_path, CHANNEL, SLICE | keys))


@pytest.mark.parametrize("name", ["is_prune", "start_epoch", "end_epoch", "input_shape"])
def test_missing_keys_are_named(tmp_path, name):
    section = {key: value for key, value in CHANNEL.items() if key != name}
    with pytest.raises(ValueError, match=rf"channel_sparsity_args\.{name} is missing"):
        PruningConfig.read(write(tmp_path, section))


def test_a_section_that_is_off_is_checked_too(tmp_path):
    with pytest.raises(ValueError, match=r"epoch_rat is no known key"):
        PruningConfig.read(write(tmp_path, OFF | {"epoch_rat": 1}))
    with pytest.raises(ValueError, match=r"epoch_rate='x'"):
        PruningConfig.read(write(tmp_path, OFF | {"epoch_rate": "x"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot be read as JSON: .*line 1"),
        ("[]", "holds a list, not an object"),
        ('{"channel_sparsity_args": {"is_prune": false}}', "slice_sparsity_args is missing"),
        ('{"chanel_sparsity_args": {}}', "chanel_sparsity_args is no known section"),
        ('{"channel_sparsity_args": null, "slice_sparsity_args": {}}', "args=null: pass a mapping"),
        ('{"channel_sparsity_args": {"is_prune": true, "is_prune": false}}', "is_prune stands th"),
        ('{"channel_sparsity_args": {"mac_target": NaN}}', "NaN is no number of JSON"),
    ],
)
def test_malformed_files(tmp_path, text, message):
    (tmp_path / "pruning_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PruningConfig.read(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no pruning_config\.json in"):
        PruningConfig.read(tmp_path / "nowhere")


def test_the_state_is_written_and_the_rest_stays(tmp_path):
    config = PruningConfig.read(write(tmp_path, CHANNEL | {"layers": ["größer"]}, SLICE))
    path = tmp_path / "pruning_config.json"
    os.chmod(path, 0o640)
    config.write_state("cut: a 3/4")
    assert state_in(tmp_path) == CHANNEL | {
        "layers": ["größer"], "reach_mac_target": True, "log_str": "cut: a 3/4",
    }  # fmt: skip
    assert json.loads(path.read_text())["slice_sparsity_args"] == SLICE
    assert "größer" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["pruning_config.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    config = PruningConfig.read(write(tmp_path, CHANNEL))
    before = (tmp_path / "pruning_config.json").read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        config.write_state("x")
    assert (tmp_path / "pruning_config.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["pruning_config.json"]
