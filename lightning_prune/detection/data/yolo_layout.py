"""Read the data.yaml of a data set in Ultralytics' layout."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.errors import DataError
from lightning_prune.files.file_error import FileError, printable
from lightning_prune.files.read_yaml import read_yaml

SPLITS = ("train", "val", "test")
MOST_CLASSES = 100_000
_OTHER_NAMES = {"val": ("valid", "validation", "dev")}


@dataclass(frozen=True)
class YoloLayout:
    """What a data.yaml says.

    Attributes:
        file: The data.yaml.
        base: Folder its entries are relative to.
        entries: For each split present, its folders or list files as written.
        names: Class names, in the order of their ids.
        key_points: Number of key points of an object and of values a point, or None.
        note: What was odd and is to be said, or None.
    """

    file: Path
    base: Path
    entries: dict[str, list[str]]
    names: list[str]
    key_points: tuple[int, int] | None = None
    note: str | None = None


def read_layout(root: str | Path) -> YoloLayout:
    """Read the data.yaml of a data set.

    Args:
        root: The folder of the data set, or its yaml file.

    Raises:
        DataError: no such file, or it does not describe a data set.
    """
    file = _find_yaml(Path(root).expanduser())
    try:
        content = read_yaml(file)
    except FileError as error:
        raise DataError(str(error)) from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no keys: it needs train, val and names")
    entries = {}
    for split in SPLITS:
        entry = next(
            (content[k] for k in (split, *_OTHER_NAMES.get(split, ())) if content.get(k)), None
        )
        if entry is not None:
            entries[split] = _entries(file, split, entry)
    for split in ("train", "val"):
        if split not in entries:
            raise DataError(f"{file} has no entry `{split}`: {_what_instead(content, split)}")
    base, note = _base(file, content.get("path"), entries)
    names, key_points = _names(file, content), _key_points(file, content.get("kpt_shape"))
    return YoloLayout(file, base, entries, names, key_points, note)


def variants(text: str) -> list[str]:
    r"""Return the ways to read a path that another system may have written, the literal one first.

    >>> variants("images\\train")
    ['images\\train', 'images/train']
    """
    return list(dict.fromkeys([text, text.replace("\\", "/")]))


def _what_instead(content: Mapping[object, object], split: str) -> str:
    known = ", ".join(printable(str(key)) for key in list(content)[:12]) or "nothing"
    hint = ""
    if split == "val" and content.get("test"):
        hint = f" (`val: {printable(str(content['test']))}` would validate on the test split)"
    return (
        f"it has {known}. Add `{split}:` with a folder of images, a list of folders or a .txt "
        f"list{hint}"
    )


def _entries(file: Path, split: str, value: object) -> list[str]:
    given = value if isinstance(value, list) else [value]
    for each in given:
        if isinstance(each, bool) or not isinstance(each, str | int) or each == "":
            raise DataError(
                f"{file}: `{split}` holds {_short(each)}: give a folder of images, a list of "
                "folders or a .txt list"
            )
    return [str(each) for each in given]


def _find_yaml(root: Path) -> Path:
    if os.path.isfile(root):
        return root
    if not os.path.isdir(root):
        what = "is neither a folder nor a file" if os.path.exists(root) else "does not exist"
        raise DataError(f"data root {root} {what}: pass a folder with data.yaml, or a yaml")
    candidates = [root / "data.yaml", root / "data.yml"]
    found = [each for each in candidates if each.is_file()]
    found = found or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if not found:
        raise DataError(f"{root} holds no data.yaml: pass the folder or the file that describes it")
    if len(found) > 1 and found[0].name not in ("data.yaml", "data.yml"):
        names = ", ".join(each.name for each in found[:12])
        raise DataError(f"{root} holds several yaml files ({names}): pass the one meant as root")
    return found[0]


def _base(file: Path, path: object, entries: Mapping[str, list[str]]) -> tuple[Path, str | None]:
    folder = file.parent.resolve()
    if path is None or path in ("", "."):
        return folder, None
    if isinstance(path, bool) or not isinstance(path, str | int):
        raise DataError(f"{file}: `path` is {_short(path)}: give a folder")
    tried = []
    for text in variants(os.path.expanduser(str(path))):
        tried += [Path(text)] if os.path.isabs(text) else [folder / text, Path.cwd() / text]
    for candidate in tried:
        if os.path.isdir(candidate):
            return candidate.resolve(), None
    needed = [entry for split in ("train", "val") for entry in entries[split]]
    if all(any(os.path.exists(folder / text) for text in variants(entry)) for entry in needed):
        return folder, (
            f"{file}: `path: {path}` does not exist; its entries are in the folder of the file, "
            "which is taken"
        )
    places = " and ".join(str(each) for each in tried[:2])
    raise DataError(
        f"{file}: `path: {printable(str(path), 300)}` does not exist (tried {places}): correct it "
        f"or drop it{download_hint(file)}"
    )


def download_hint(file: Path) -> str:
    """Record that a `download` in the file was not run, if there is one."""
    content = read_yaml(file)
    if isinstance(content, dict) and content.get("download"):
        return "; its `download` is not run: fetch the data set first"
    return ""


def _names(file: Path, content: Mapping[object, object]) -> list[str]:
    names, count = content.get("names"), _count(file, content.get("nc"))
    if names is None and count is not None:
        return [f"class{index}" for index in range(count)]
    if isinstance(names, dict):
        names = _in_order(file, names)
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: `names` is {_short(names)}: give a list of class names or `nc`")
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            why = " (so YAML reads yes, no, on and off)" if isinstance(name, bool) else ""
            raise DataError(
                f"{file}: names[{index}] is {_short(name)}{why}: give a text, in quotes"
            )
    if len(names) > MOST_CLASSES:
        raise DataError(f"{file}: {len(names)} names; at most {MOST_CLASSES} classes are possible")
    if count is not None and count != len(names):
        raise DataError(f"{file}: nc is {count}, but `names` has {len(names)} entries: correct one")
    return [str(name) for name in names]


def _count(file: Path, value: object) -> int | None:
    if value is None:
        return None
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_CLASSES:
        raise DataError(
            f"{file}: nc is {_short(value)}: give the number of classes, 1 to {MOST_CLASSES}"
        )
    return number


def _in_order(file: Path, names: Mapping[object, object]) -> list[object]:
    numbered: dict[object, object] = {}
    for key, name in names.items():
        text = isinstance(key, str) and key.strip().isdecimal() and len(key) < 10
        numbered[int(key) if text else key] = name  # type: ignore[call-overload]
    if set(numbered) != set(range(len(names))) or any(isinstance(key, bool) for key in numbered):
        absent = next(i for i in range(len(names) + 1) if i not in numbered)
        shown = ", ".join(printable(str(key)) for key in list(names)[:12])
        raise DataError(
            f"{file}: the keys of `names` are [{shown}{', ...' * (len(names) > 12)}], {absent} is "
            "missing: number them 0, 1, 2..."
        )
    return [numbered[index] for index in range(len(names))]


def _key_points(file: Path, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    shape = value if isinstance(value, list) else []
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in shape)
    if len(shape) != 2 or not whole or not 1 <= shape[0] <= 10_000 or shape[1] not in (2, 3):
        raise DataError(f"{file}: kpt_shape is {_short(value)}: give [points, 2] or [points, 3]")
    return shape[0], shape[1]


def _short(value: object) -> str:
    # lists and mappings may stand for far more than they show
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "a mapping"
        return f"{kind} of {len(value)}" if value else f"an empty {kind[2:]}"
    return printable(repr(value)[:200])
