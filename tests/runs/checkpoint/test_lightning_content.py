import pytest
import torch

from lightning_prune.runs.checkpoint.lightning_content import check_lightning

GOOD = {
    "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.6.0.post1",
    "state_dict": {"w": torch.ones(1)}, "loops": {}, "callbacks": {},
    "optimizer_states": [{"state": {0: {}}, "param_groups": [{"lr": 0.1}]}],
    "lr_schedulers": [{"last_epoch": 3}], "hyper_parameters": {"width": 8}, "hparams_name": "k",
}  # fmt: skip


def test_checkpoints_of_lightning_pass():
    assert check_lightning(GOOD) is GOOD
    assert check_lightning({"state_dict": {}, "mine": [1]}) == {"state_dict": {}, "mine": [1]}
    for version in ("1.9.5", "2.0.0rc1", "2.5.0.dev20240101", "2.6+local"):
        check_lightning(GOOD | {"pytorch-lightning_version": version})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_dict": [1]}, "state_dict is a list"),
        ({"state_dict": {1: torch.ones(1)}}, "a name in state_dict is no text but a int"),
        ({"hyper_parameters": {None: 1}}, "no text but a NoneType"),
        ({"state_dict": {"\ud800": torch.ones(1)}}, "no text but a str"),
        ({"hyper_parameters": torch.ones(1)}, "hyper_parameters is a Tensor"),
        ({"callbacks": None}, "callbacks is a NoneType"),
        ({"epoch": -1}, "epoch is no number from 0"),
        ({"epoch": True}, "epoch is no number from 0"),
        ({"global_step": 2**70}, "global_step is no number"),
        ({"pytorch-lightning_version": "x" * 99}, "is no version"),
        ({"pytorch-lightning_version": 2}, "is no version"),
        ({"optimizer_states": {}}, "optimizer_states is a dict"),
        ({"optimizer_states": [3]}, "optimizer_states holds a int"),
        ({"optimizer_states": [{"param_groups": "x"}]}, "not those of an optimizer"),
        ({"optimizer_states": [{"param_groups": [], "state": []}]}, "not those of an optimizer"),
        ({"lr_schedulers": ["x"]}, "lr_schedulers holds a str"),
        ({3: 4}, "no Lightning checkpoint"),
    ],
)
def test_parts_of_other_types_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_lightning(GOOD | change)


def test_what_is_no_dict():
    with pytest.raises(ValueError, match="no Lightning checkpoint"):
        check_lightning([1])
