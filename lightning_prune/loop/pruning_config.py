"""The file ``pruning_config.json``: read strictly, and the state that a run writes back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lightning_prune.files import write_bytes
from lightning_prune.loop.channel_sparsity_args import ChannelSparsityArgs
from lightning_prune.loop.slice_sparsity_args import SliceSparsityArgs
from lightning_prune.validation import read, record_problems, refuse

FILE_NAME = "pruning_config.json"
_SECTIONS = {"channel_sparsity_args": ChannelSparsityArgs, "slice_sparsity_args": SliceSparsityArgs}

Stage = TypeVar("Stage")


@dataclass(frozen=True)
class PruningConfig:
    """What a configuration file asks for.

    Attributes:
        path: The file.
        channel: Channel pruning; None where ``is_prune`` is false.
        slice: Slice pruning; None where ``is_prune`` is false.
    """

    path: Path
    channel: ChannelSparsityArgs | None
    slice: SliceSparsityArgs | None

    @classmethod
    def read(cls, folder: str | Path) -> "PruningConfig":
        """Read ``pruning_config.json`` in a folder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no JSON, or a key is unknown, missing or has a value that is not
                allowed; the message names the file and the key.
        """
        path = Path(folder) / FILE_NAME
        content = _content(path)
        allowed = " and ".join(_SECTIONS)
        unknown = [name for name in content if name not in _SECTIONS]
        problems = [f"{name} is no known section: allowed are {allowed}" for name in unknown]
        stages: dict[str, Any] = {}
        for name, kind in _SECTIONS.items():
            try:
                stages[name] = _stage(kind, content, name)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(f"{path}: " + "\n".join(problems))
        return cls(path, *stages.values())

    def write_state(self, log_str: str) -> None:
        """Write back that the model was cut, and what was cut; the rest of the file stays.

        The file is replaced whole, so that nobody reads a part of it.

        Args:
            log_str: What was cut.
        """
        content = _content(self.path)
        content["channel_sparsity_args"] |= {"reach_mac_target": True, "log_str": log_str}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_bytes(self.path, text.encode(), keep_mode=True)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {path.parent}: write one with channel_sparsity_args and "
            'slice_sparsity_args ({"is_prune": false} turns either off)'
        )
    try:
        content = json.loads(
            path.read_text(encoding="utf-8-sig"),
            object_pairs_hook=_without_repeats,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object with sections")
    return content


def _stage(kind: type[Stage], content: Mapping[str, Any], name: str) -> Stage | None:
    if name not in content:
        raise ValueError(f'{name} is missing: {{"is_prune": false}} turns it off')
    given = content[name]
    if isinstance(given, Mapping) and given.get("is_prune") is False:
        refuse(record_problems(kind, given, name, complete=False))
        return None
    return read(kind, given, name)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for name in found:
        if sum(other == name for other, _ in pairs) > 1:
            raise ValueError(f"{name} stands there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
