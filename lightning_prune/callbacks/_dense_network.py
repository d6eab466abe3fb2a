"""The dense network of a run from its file: found, known by its weights, built."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_prune.callbacks.protocol import DenseCheckpointWriter
from lightning_prune.files.file_error import printable
from lightning_prune.files.part_file import PartFile
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.runs.checkpoint.lightning_content import check_lightning
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.ranks import broadcast
from lightning_prune.surgery.copy_module import copy_module


def dense_file(trainer: pl.Trainer) -> str | None:
    """Return the file in which a masker keeps the dense model, or None."""
    writers = (c for c in callbacks_of(trainer) if isinstance(c, DenseCheckpointWriter))
    files = (writer.dense_checkpoint for writer in writers)
    return next((file for file in files if file is not None), None)


class DenseNetwork:
    """The dense network of a run as it is in a file, which a resumed run must find again.

    Args:
        stage: Name of the stage that learns from it, for messages.
        teacher: The file, where it is not the masker's.

    Attributes:
        path: Where it was last; None: it is not written yet.
        digest: That of its weights.
    """

    def __init__(self, stage: str, teacher: str | None = None) -> None:
        self.stage, self.teacher = stage, teacher
        self.path: str | None = None
        self.digest: str | None = None

    @property
    def is_known(self) -> bool:
        """Return whether it was there already."""
        return self.digest is not None

    def remember(self, trainer: pl.Trainer) -> None:
        """Note the masker's file, which has been written.

        Raises:
            ValueError: it is not there.
        """
        path = self.teacher or dense_file(trainer)
        if path is None or not Path(path).is_file():
            raise ValueError(_problem(self.stage, "is not there", str(path)))
        self.path, self.digest = path, weights_digest(weights_of(path))

    def load(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> nn.Module:
        """Return the dense network: of the argument, the masker, or the run that is resumed.

        Raises:
            ValueError: the file is missing, was changed, or is of another network.
        """
        if self.digest is None:
            self.path = str(self.teacher)
            if not Path(self.path).is_file():
                raise ValueError(f"teacher={self.path!r}: there is no such file")
            state = weights_of(self.path)
            self.digest = weights_digest(state)
        else:
            own = dense_file(trainer)
            places = [self.teacher] if self.teacher is not None else [own, self.path]
            self.path, state = find_known(
                self.stage, [p for p in places if p is not None], self.digest
            )
            if self.teacher is None and own is not None and not Path(own).exists():
                # The run continues in another folder, which is to be complete.
                if trainer.is_global_zero:
                    copy_file(self.path, own)
                self.path = own
            broadcast(trainer, None)  # nobody looks for the file while it is copied
        return build_dense(pl_module, state, self.path)

    def check_widths(self, network: nn.Module, pl_module: pl.LightningModule) -> None:
        """Refuse a network that is not as wide as the one that is about to be pruned.

        Raises:
            ValueError: a layer is wider or narrower; the message names the first.
        """
        own = {name: tuple(value.shape) for name, value in pl_module.named_parameters()}
        for name, value in network.named_parameters():
            if own.get(name) != tuple(value.shape):
                raise ValueError(
                    f"teacher={printable(str(self.path), 1000)}: {name} is {tuple(value.shape)} "
                    f"there and {own.get(name)} in the network that is to be pruned, whose "
                    "channels its features are compared with: pass the dense checkpoint of this "
                    "network, or set features=0"
                )


def _problem(stage: str, what: str, path: str) -> str:
    return (
        f"the dense network that this run learns from {what}: {printable(path, 1000)}. Put the "
        f"file back, pass a copy of it (teacher=PATH), or leave the {stage} out"
    )


def weights_of(path: str | Path) -> dict[str, Any]:
    """Return the state dict of a checkpoint of Lightning.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, or holds pickled objects.
        ValueError: it is no checkpoint of Lightning.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{printable(str(path))} is no Lightning checkpoint: no 'state_dict'")
    return dict(check_lightning(content)["state_dict"])


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the tensors of a state dict and their names, whatever file they are in.

    >>> a, b = {"w": torch.zeros(2)}, {"w": torch.zeros(2, dtype=torch.float64)}
    >>> weights_digest(a) == weights_digest({"w": torch.zeros(2)}), weights_digest(a)[:8]
    (True, 'c54171ae')
    >>> weights_digest(a) == weights_digest(b)
    False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_known(stage: str, paths: Sequence[str], digest: str) -> tuple[str, dict[str, Any]]:
    """Return the first file that holds weights of a digest, and these.

    Raises:
        ValueError: none does; what is wrong with the first that is there, and what to do.
    """
    problem = "is not there"
    for path in paths:
        if Path(path).is_file():
            state = weights_of(path)
            if weights_digest(state) == digest:
                return path, state
            problem = "does not hold the weights that this run began with"
    raise ValueError(_problem(stage, problem, paths[0]))


def build_dense(pl_module: pl.LightningModule, state: dict[str, Any], path: str) -> nn.Module:
    """Return a copy of a module, however narrow it is by now, with the weights of the dense one.

    Raises:
        ValueError: they are weights of another network.
    """
    network = copy_module(pl_module)
    vars(network).pop("forward", None)  # of a compiled module it would run the original
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        why = printable(" ".join(str(error).split()), 300)
        raise ValueError(
            f"{printable(path, 1000)} does not fit {type(pl_module).__name__}: the teacher is the "
            f"same network before it was pruned ({why})"
        ) from error
    return network


def copy_file(source: str, target: str) -> None:
    """Copy a file, whole or not at all."""
    with Path(source).open("rb") as file, PartFile(Path(target)) as part:
        while data := file.read(1 << 20):
            part.write(data)
        part.commit()
