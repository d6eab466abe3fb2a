"""Every strength of an augmentation is an argument of the data sets, and a key of their files."""

import inspect
from dataclasses import asdict
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from lightning_prune.detection.data.augment import Augmentation
from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.runs.configuration.config_folder import config_folder

CONF = config_folder()
SETS = sorted(
    path.stem for path in (CONF / "data").glob("*.yaml") if "/augmentation/" in path.read_text()
)


def node(name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"data={name}", *overrides])
    return OmegaConf.to_container(cfg.data)


def test_there_are_such_sets() -> None:
    assert {"coco_json", "digits", "yolo_folder"} <= {*SETS}


@pytest.mark.parametrize("name", SETS)
def test_constructor_and_file_have_the_same_strengths(name: str) -> None:
    content = node(name)
    parameters = inspect.signature(get_object(content["_target_"])).parameters
    shown = {key: parameters[key].default for key in asdict(Augmentation())}
    assert shown == {key: content[key] for key in shown}


def test_what_is_typed_reaches_the_augmentation_beside_the_defaults() -> None:
    made = instantiate(node("digits", "data.mosaic=0.5", "data.shear=3", "data.seed=0"))
    expected = Augmentation(mosaic=0.5, translate=0.05, scale=0.15, shear=3, hsv_v=0.2)
    assert made.augmentation == expected


def test_wrong_strengths_are_refused_together_with_the_rest() -> None:
    with pytest.raises(ValueError, match=r"batch_size=0: pass .*\n.*scale=2: pass a number in \["):
        DigitsDetectionDataModule(batch_size=0, scale=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mosiac'"):
        DigitsDetectionDataModule(mosiac=0.5)
