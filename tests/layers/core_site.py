"""A site-packages folder that holds what some layers of the dependencies install, and no more."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]


def layer_requirements(extras: Iterable[str]) -> list[Requirement]:
    """Return what pyproject.toml asks for: the dependencies, and those of the extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) == "lightning-prune":
                found += layer_requirements(requirement.extras)
            else:
                found.append(requirement)
    return found


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Return the names of all distributions that come with requirements."""
    waiting, found = [(canonicalize_name(one.name), one.extras) for one in requirements], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, *sorted(extras)) in found:
            continue
        found.add((name, *sorted(extras)))
        for line in importlib.metadata.requires(name) or ():
            one = Requirement(line)
            names = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if one.marker is None or any(one.marker.evaluate(given) for given in names):
                waiting.append((canonicalize_name(one.name), one.extras))
    return {name for name, *_ in found}


def link_site(folder: Path, extras: Iterable[str] = ()) -> Path:
    """Link every file of those distributions, and of none besides, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in closure(layer_requirements(extras)):
        distribution = importlib.metadata.distribution(name)
        root = Path(str(distribution.locate_file("")))
        for top in {file.parts[0] for file in distribution.files or ()}:
            if top == ".." or top == "__pycache__" or re.search(r"\.pth$", top):
                continue
            link = folder / top
            if not link.exists():
                link.symlink_to(root / top)
    return folder
