import importlib.metadata
import os
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from lightning_prune.extras import EXTRAS
from tests.layers.core_site import PROJECT, closure, layer_requirements, link_site

NAMES = """
import lightning_prune as lp
for name in lp.__all__:
    try:
        getattr(lp, name)
    except ModuleNotFoundError as error:
        print(error)
"""
PRUNED = """
import sys
import examples.prune_classifier as example
accuracy = example.main(sys.argv[1], 1, 2)
for folder in ("matplotlib", "rich", "hydra", "torchvision"):
    assert folder not in sys.modules, folder
print("accuracy", accuracy)
"""


def distributions(extras):
    return closure(layer_requirements(extras))


def of_package(package):
    (name,) = {canonicalize_name(n) for n in importlib.metadata.packages_distributions()[package]}
    return name


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return link_site(tmp_path_factory.mktemp("core"))


def python(site, *arguments, cwd):
    # -S: the environment that the tests run in stays out of sight.
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{PROJECT}"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("package", EXTRAS)
def test_extras_bring_what_their_table_says(package):
    name = of_package(package)
    if package not in ("jinja2", "markupsafe"):  # torch brings them
        assert name not in distributions(())
    for extra in EXTRAS[package]:
        assert name in distributions((extra,))
    sizes = [len(distributions((extra,))) for extra in EXTRAS[package]]
    assert sizes[0] == min(sizes)


def test_all_is_every_layer():
    layers = ("vision", "detection", "neural", "report", "cli")
    assert distributions(("all",)) == set().union(*(distributions((one,)) for one in layers))


def test_public_names_without_extras(core, tmp_path):
    lines = python(core, "-c", NAMES, cwd=tmp_path).stdout.splitlines()
    assert sorted(lines) == [
        "CocoJsonDataModule needs torchvision: pip install 'lightning-prune[detection]', or [all]",
        "DetectionModule needs torchvision: pip install 'lightning-prune[detection]', or [all]",
        "Detections needs PIL: pip install 'lightning-prune[detection]', or [all]",
        "DigitsDetectionDataModule needs torchvision: pip install 'lightning-prune[detection]', "
        "or [all]",
        "ImageFolderData needs PIL: pip install 'lightning-prune[vision]', or [all]",
        "MaskFolderData needs PIL: pip install 'lightning-prune[vision]', or [all]",
        "NeuralSessionsDataModule needs h5py: pip install 'lightning-prune[neural]', or [all]",
        "SimulatedCellsDataModule needs h5py: pip install 'lightning-prune[neural]', or [all]",
        "UltralyticsDataModule needs PIL: pip install 'lightning-prune[detection]', or [all]",
        "UltralyticsModule needs torchvision: pip install 'lightning-prune[detection]', or [all]",
        "YoloFolderDataModule needs torchvision: pip install 'lightning-prune[detection]', "
        "or [all]",
        "read_image needs PIL: pip install 'lightning-prune[vision]', or [all]",
    ]


def test_a_recipe_prunes_with_the_core_alone(core, tmp_path):
    run = python(core, "-c", PRUNED, str(tmp_path / "run"), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) > 0.3
    written = {path.name for path in (tmp_path / "run").rglob("*")}
    assert {"pruning_report.json", "report.html", "best_pruned.ckpt"} <= written
    assert "figures" not in written
    assert "PruningReport draws no figures without matplotlib: pip install" in run.stderr


@pytest.mark.parametrize("command", ["train", "layers", "report"])
def test_commands_say_what_to_install(core, tmp_path, command):
    run = python(core, "-m", "lightning_prune", command, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith(": pip install 'lightning-prune[cli]', or [all]")
    assert "Traceback" not in run.stderr


def test_a_configuration_says_what_its_classes_need(tmp_path):
    site = link_site(tmp_path / "site", ["cli"])
    words = ["data=simulated_cells", "model=learned_res_optimized_gru_small"]
    run = python(site, "-m", "lightning_prune", "train", *words, cwd=tmp_path)
    assert run.returncode == 2
    sentence = (
        "SimulatedCellsDataModule needs h5py: pip install 'lightning-prune[neural]', or [all]"
    )
    assert sentence in run.stderr
    run = python(site, "-m", "lightning_prune", "layers", cwd=tmp_path)
    assert "mAP needs faster_coco_eval: pip install 'lightning-prune[detection]'" in run.stderr
