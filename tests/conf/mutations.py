"""Changes to a composed configuration, drawn from the configuration itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from lightning_prune.runs.configuration.config_folder import config_folder

Kind = Literal["set", "delete", "rename", "add", "copy"]
Path = tuple[str | int, ...]

# Tests of the whole command line cover these; they say where files go, not what is trained.
LEFT_ALONE = ("output_dir", "default_root_dir", "hydra")
NAMES = ["abc", "", "nO.such.thing", "1", "null", "???", "${no.such.key}", "a b=c"]
NUMBERS = [-1, 0, 1, 2, 3, 64, -0.5, 0.5, 1.0, 1.5, 1e-30, 1e30, 10**9, 10**30]
STRANGE = [math.nan, math.inf, -math.inf, True, False, None]
CONTAINERS: list[Any] = [
    [],
    {},
    [1],
    ["abc"],
    [None],
    [0.5, 0.25],
    {"a": 1},
    {"_target_": "no.such.Thing"},
    ["no.such.layer"],
    ["network.backbone.p9.*", "network.*"],
    ["!network.*"],
    [""],
]
EPOCHS = [-1, 0, 1, 2, 3, 4, 5, 100, 10**9]
ADDED = ["zzz", "_zzz_", "_args_", "_partial_", "_convert_", "lr", "layers", "a.b"]
KINDS_OF_NEAR_MISS: tuple[Kind, ...] = ("rename", "copy")
# Objects of another kind: a class without any meaning here, data, a function, a module, nothing.
TARGETS = [
    "torch.nn.Linear",
    "builtins.dict",
    "builtins.int",
    "math.pi",
    "math.sqrt",
    "os.path",
    "lightning.pytorch.LightningModule",
    "lightning.pytorch.LightningDataModule",
    "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.callbacks.EarlyStopping",
    "no.such.Thing",
    "Trainer",
    "",
    3,
    None,
]


@dataclass(frozen=True)
class Mutation:
    """One change: what is done at which key."""

    kind: Kind
    path: Path
    value: Any = None

    def apply(self, tree: dict[str, Any]) -> None:
        """Change a configuration of plain dicts and lists; what is not there is left alone."""
        parent: Any = tree
        for key in self.path[:-1]:
            if not _has(parent, key):
                return
            parent = parent[key]
        last: Any = self.path[-1]
        if self.kind in ("set", "add"):
            if isinstance(parent, dict) or _has(parent, last):
                parent[last] = self.value
        elif _has(parent, last):
            value = parent[last] if self.kind == "copy" else parent.pop(last)
            if self.kind != "delete" and isinstance(parent, dict):
                parent[self.value] = value

    @property
    def names(self) -> list[str]:
        """What a refusal may name it by: the key, its new name, a class that was put there."""
        keys = [key for key in self.path if isinstance(key, str)]
        put = self.value.rpartition(".")[2] if isinstance(self.value, str) else ""
        # A wrong class may refuse by the name of the place where it was put.
        place = keys[-2:-1] if keys[-1] == "_target_" else []
        return [keys[-1], *place, *([put] if put else [])]

    def __str__(self) -> str:
        """Show it in a failing example."""
        return f"{self.kind} {'.'.join(map(str, self.path))} {self.value!r}"


def mutations(cfg: DictConfig) -> dict[str, list[Mutation]]:
    """Return every change to a configuration that is tried, by what is tried."""
    tree = OmegaConf.to_container(cfg, resolve=False)
    paths = sorted(_paths(tree), key=str)
    mappings = sorted({path[:-1] for path in paths if isinstance(path[-1], str)}, key=str)
    targets = sorted({str(node["_target_"]) for node in nodes(tree)} | shipped_targets())
    named = [path for path in paths if isinstance(path[-1], str)]
    stages = [path for path in named if len(path) == 2 and isinstance(_at(tree, path), dict)]
    values = [*NAMES, *NUMBERS, *STRANGE, *CONTAINERS]
    return {
        "anything anywhere": [Mutation("set", path, value) for path in paths for value in values],
        "the right type": [
            Mutation("set", path, value)
            for path in paths
            for value in _fitting(str(path[-1]), _at(tree, path), targets)
        ],
        "left out": [Mutation("delete", path) for path in paths],
        "misspelt": [
            Mutation(kind, path, near)
            for path in named
            for near in _near_misses(str(path[-1]))
            for kind in KINDS_OF_NEAR_MISS
        ],
        "added": [
            Mutation("add", (*path, key), value)
            for path in mappings
            for key in ADDED
            for value in values
        ],
        "twice": [Mutation("copy", path, key) for path in stages for key in ("again", "data")],
    }


def shipped_targets() -> set[str]:
    """Return every `_target_` of the shipped configs."""
    found = set()
    for path in config_folder().rglob("*.yaml"):
        if path.parent.name != "experiment":
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            found |= {str(node["_target_"]) for node in nodes(content)}
    return found


def _fitting(key: str, value: Any, targets: list[str]) -> list[Any]:
    """Return values of the right type for a key: what a check of types alone lets through."""
    if key == "_target_":
        return [*TARGETS, *targets]
    if "epoch" in key and not isinstance(value, bool | dict):
        return EPOCHS
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [number for number in NUMBERS if isinstance(number, int)]
    if isinstance(value, float):
        return [*NUMBERS, math.nan, math.inf]
    if isinstance(value, str):
        return [*NAMES, *NUMBERS]
    return [*NUMBERS, *CONTAINERS]


def _near_misses(key: str) -> list[str]:
    near = {key[1:], key[:-1], key + "s", key.upper(), key.replace("_", ""), f"_{key}"}
    return sorted(near - {key, ""})


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        if key in LEFT_ALONE:
            continue
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from _paths(child, (*path, key))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping with `_target_`, those inside others too."""
    if isinstance(value, dict) and "_target_" in value:
        yield value
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, dict | list):
            yield from nodes(child)


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _has(parent: Any, key: Any) -> bool:
    if isinstance(parent, list):
        return isinstance(key, int) and key < len(parent)
    return isinstance(parent, dict) and key in parent
