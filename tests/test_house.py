"""The floors of the house: who may import whom, and that the public names exist."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning
import pytest

import lightning_prune

PACKAGE = Path(lightning_prune.__file__).parent
# A room may import the rooms named here, and itself.
CHECKS = {"annotations", "arguments", "validation"}
FLOOR_0 = {"functional", "files", "errors", "extras"} | CHECKS
FLOOR_1 = FLOOR_0 | {"graph", "plan"}
FLOOR_2 = FLOOR_1 | {"surgery", "observe"}
FLOOR_3 = FLOOR_2 | {"policies", "engine", "loop", "testing"}
FLOOR_4 = FLOOR_3 | {"report"}
LATENCY = FLOOR_4 | {"export"}
RUNS = FLOOR_0 | {"runs", "moved"}
SHARED = FLOOR_2 | RUNS | {"data", "modules"}
FRONT = (
    FLOOR_4 | RUNS | {"callbacks", "loading", "data", "modules", "detection", "neural", "vision"}
)
ROOMS = {
    "annotations": set(),
    "validation": {"annotations"},
    "arguments": {"annotations"},
    "functional": CHECKS,
    "files": {"functional"},
    "errors": set(),
    "extras": set(),
    "plan": FLOOR_0,
    "graph": FLOOR_0 | {"plan"},
    "surgery": FLOOR_1 | {"observe"},
    "observe": FLOOR_1 | {"surgery"},
    "testing": FLOOR_2 | {"policies"},
    "policies": FLOOR_2,
    "engine": FLOOR_2 | {"policies"},
    "loop": FLOOR_2 | {"policies", "engine"},
    "report": FLOOR_3,
    "runs": FLOOR_0 | {"moved"},
    "export": FLOOR_4,
    "latency": LATENCY,
    "callbacks": FLOOR_4 | RUNS | {"loading", "latency", "export"},
    "loading": FLOOR_4 | RUNS,
    "criteria": FLOOR_3,
    "recipe_stages": FLOOR_4 | RUNS | {"callbacks"},
    "recipes": FLOOR_4 | RUNS | {"callbacks", "recipe_stages"},
    "pruned_run": FLOOR_4 | RUNS | {"callbacks", "recipes"},
    "data": FLOOR_0 | {"runs"},
    "modules": SHARED,
    "detection": SHARED | {"export"},
    "neural": SHARED,
    "vision": SHARED,
    "moved": set(),
    "cli": FRONT | {"export", "latency"},
    "conf": set(),
    "__main__": {"cli", "extras"},
    "__init__": FRONT | {"export", "latency", "moved", "criteria", "recipes", "pruned_run"},
}
LIGHTNING = {
    "callbacks",
    "recipe_stages",
    "recipes",
    "pruned_run",
    "runs",
    "loading",
    "modules",
    "data",
    "detection",
    "neural",
    "vision",
    "cli",
}
LIBRARY = {"lightning", "lightning_fabric", "pytorch_lightning"}
# Where private names of Lightning may be used: by subject, so that a new version breaks few files.
PRIVATE_ROOMS = ("callbacks/trainer", "runs/trainer", "runs/resume")
NOT_ONLY_THEIRS = {"_computed"}  # of every torchmetrics.Metric
FUNCTIONAL = {"torch", "numpy", "sklearn", "sklearn_extra", "kneed", "numba", "scipy"}
# AGPL and GPL: their sources are neither read nor imported by the package.
FORBIDDEN = {"ultralytics", "kmedoids", "yolov8"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(PACKAGE.parent).parts[: -node.level or None]
            module = ".".join([*(package if node.level else ()), *filter(None, [node.module])])
            if module == "lightning_prune":
                for alias in node.names:
                    yield f"lightning_prune.{alias.name}", node.lineno
            else:
                yield module, node.lineno


def all_imports() -> Iterator[tuple[str, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, line in imports_of(path):
            yield room_of(path), name, f"{path.relative_to(PACKAGE)}:{line} imports {name}"


def private_names(folder: Path) -> set[str]:
    """Return the names with one leading underscore that the files of a folder define."""
    patterns = (
        r"^\s*(?:async )?def (_[a-z]\w*)",
        r"\bself\.(_[a-z]\w*)\s*(?::[^=\n]+)?=[^=]",
        r"^(?:    )?(_[a-z]\w*)\s*(?::[^=\n]+)?(?:=[^=]|$)",
    )
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    return {name for text in texts for p in patterns for name in re.findall(p, text, re.M)}


def private_uses(path: Path, names: set[str]) -> Iterator[str]:
    """Yield where a file uses one of these names, as an attribute or as text, or imports one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        used: list[object] = []
        if isinstance(node, ast.Attribute):
            used = [node.attr]
        elif isinstance(node, ast.Constant):
            used = [node.value]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARY:
            path_and_names = f"{node.module}.{'.'.join(alias.name for alias in node.names)}"
            used = [part for part in path_and_names.split(".") if part.startswith("_")]
            names = names | set(map(str, used))
        for name in used:
            if isinstance(name, str) and name in names:
                yield f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)} uses {name}"


def test_private_names_of_lightning_stay_in_their_rooms():
    """Names that Lightning defines and the package does not: whatever object they are asked of."""
    theirs = private_names(Path(lightning.__file__).parent) - private_names(PACKAGE)
    rooms = tuple(PACKAGE / room for room in PRIVATE_ROOMS)
    outside = [p for p in PACKAGE.rglob("*.py") if not any(p.is_relative_to(r) for r in rooms)]
    astray = [use for path in outside for use in private_uses(path, theirs - NOT_ONLY_THEIRS)]
    assert not astray, "\n".join(astray)
    inside = [use for room in rooms for p in room.rglob("*.py") for use in private_uses(p, theirs)]
    assert len(inside) > 20, "the rule finds what it looks for"


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms <= ROOMS.keys(), "a new room needs its place in the order of floors"


def test_imports_go_down_only():
    upward = []
    for room, name, place in all_imports():
        parts = name.split(".")
        if parts[0] != "lightning_prune" or len(parts) < 2:
            continue
        target = parts[1]
        if target != room and target not in ROOMS[room] and target != "__version__":
            upward.append(f"{place}: {room} may import {sorted(ROOMS[room])}")
    assert not upward, "\n".join(upward)


def test_ultralytics_is_imported_by_name_in_one_room():
    """Their package is AGPL: only ``their_module`` imports it, and only its own room calls that."""
    users = {
        str(path.relative_to(PACKAGE).parent)
        for path in PACKAGE.rglob("*.py")
        if re.search(r"their_module|import_module\(f?.ultralytics", path.read_text("utf-8"))
    }
    assert users == {"detection/ultralytics"}


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        (LIBRARY, LIGHTNING),
        ({"hydra", "omegaconf"}, {"cli", "runs"}),
        ({"torch_pruning"}, {"graph"}),
        ({"onnx", "onnxruntime", "onnxscript"}, {"export", "latency"}),
        ({"openvino", "nncf"}, {"export"}),
        ({"timm"}, {"vision"}),
        ({"segmentation_models_pytorch"}, {"vision"}),
        (FORBIDDEN, set()),
    ],
    ids=["lightning", "hydra", "torch_pruning", "onnx", "openvino", "timm", "smp", "agpl"],
)
def test_libraries_stay_in_their_rooms(libraries: set[str], allowed: set[str]):
    astray = [
        place
        for room, name, place in all_imports()
        if name.split(".")[0] in libraries and room not in allowed
    ]
    assert not astray, "\n".join(astray)


def test_functional_needs_only_numeric_libraries():
    allowed = FUNCTIONAL | {"lightning_prune"} | set(sys.stdlib_module_names)
    astray = [
        place
        for room, name, place in all_imports()
        if room == "functional" and name.split(".")[0] not in allowed
    ]
    astray += [
        str(path)
        for path in (PACKAGE / "functional").rglob("*.py")
        if "nn.Module" in path.read_text(encoding="utf-8")
    ]
    assert not astray, "\n".join(astray)


def test_functional_works_without_lightning_and_hydra():
    code = (
        "import sys\n"
        "for name in ('lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'torch_pruning'):\n"
        "    sys.modules[name] = None\n"
        "import lightning_prune.functional\n"
        "from lightning_prune import select_channels\n"
        "print(select_channels.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "select_channels"


@pytest.mark.parametrize("name", sorted(lightning_prune._HOMES))
def test_public_name_resolves(name: str):
    value = getattr(lightning_prune, name)
    assert value.__name__ == {"CSP_Reset": "CSPReset"}.get(name, name)  # the guide's name of it
    assert value.__doc__


def test_type_checkers_see_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module.removeprefix("lightning_prune.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {name: seen.pop(name) for name in lightning_prune._MODULES}
    assert seen == lightning_prune._HOMES
    assert set(modules.values()) == {"lightning_prune"}


def test_what_is_meant_to_be_seen_is_what_is_shown():
    assert sorted(lightning_prune.__all__) == dir(lightning_prune)
    assert lightning_prune.criteria.Fisher is lightning_prune.Fisher


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = lightning_prune.prune_everything


def test_version_is_that_of_the_changelog_or_later():
    numbers = lightning_prune.__version__.split(".")
    assert len(numbers) == 3
    assert all(number.isdigit() for number in numbers)


def test_no_file_grows_past_350_lines():
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long
