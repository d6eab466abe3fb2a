"""The wheel in a fresh environment and a foreign folder: the configs are in it and compose."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

COMPOSE_ALL = """
import json
from hydra import compose, initialize_config_dir, initialize_config_module
import lightning_prune
from lightning_prune.runs.configuration.config_folder import config_folder

folder = config_folder()
root = {"data", "model", "trainer", "callbacks", "logger"}
done = []
with initialize_config_module("lightning_prune.conf", version_base="1.3"):
    for path in sorted(folder.glob("*/*.yaml")):
        if "/hydra/sweeper" in path.read_text():  # needs a plugin
            continue
        group = path.parent.name
        plus = "" if group in root else "+"
        cfg = compose("train", overrides=[f"{plus}{group}={path.stem}", "output_dir=x"])
        done.append(f"{group}={path.stem}")
with initialize_config_dir(MINE, version_base="1.3"):
    own = compose("mine", overrides=["+trainer=cpu"])
print(json.dumps({
    "package": lightning_prune.__file__,
    "conf": str(folder),
    "options": done,
    "accelerator": own.trainer.accelerator,
}))
"""


def run(*words: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    run(sys.executable, *words, REPOSITORY, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path line adds the folder without running its own .pth files: an editable install of the
    # checkout stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_wheel_holds_configs_licence_and_types(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        f"lightning_prune/{path.relative_to(REPOSITORY)}"
        for pattern in ("*.yaml", "*.py")
        for path in (REPOSITORY / "conf").rglob(pattern)
    }
    assert shipped <= names
    templates = {
        "run.html.jinja",
        "base.html.jinja",
        "comparison.html.jinja",
        "page.css",
        "page.js",
    }
    assert {f"lightning_prune/report/page/templates/{name}" for name in templates} <= names
    assert "lightning_prune/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "conf/")) for name in names)


def test_every_option_composes_from_a_foreign_folder(installed: Path, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(
        "hydra:\n  searchpath: [pkg://lightning_prune.conf]\noutput_dir: x\n"
    )
    script = COMPOSE_ALL.replace("MINE", repr(str(tmp_path)))
    found = json.loads(run(installed, "-c", script, cwd=tmp_path))
    environment = str(installed.parent.parent)
    assert found["package"].startswith(environment)
    assert found["conf"].startswith(environment)
    conf = REPOSITORY / "conf"
    plain = [p for p in conf.glob("*/*.yaml") if "/hydra/sweeper" not in p.read_text()]
    expected = sorted(f"{p.parent.name}={p.stem}" for p in plain)
    assert sorted(found["options"]) == expected
    assert found["accelerator"] == "cpu"


def test_commands_work_from_a_foreign_folder(installed: Path, tmp_path: Path):
    shown = run(installed, "-m", "lightning_prune", "train", "--cfg", "job", cwd=tmp_path)
    assert "_target_: lightning_prune.detection.module.DetectionModule" in shown
    script = installed.parent / "lightning-prune"
    assert "Configuration groups" in run(script, "train", "--help", cwd=tmp_path)
