"""Channels last on two processes: ``python -m tests.callbacks.channels_last_on_two FOLDER``."""

import sys
import warnings
from pathlib import Path

import torch

from lightning_prune.callbacks.channels_last import ChannelsLast
from tests.callbacks.test_channels_last import run


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    # The processes that Lightning starts run this file again.
    options = {"devices": 2, "strategy": "ddp", "precision": "bf16-mixed"}
    for name, file in (("whole", None), ("masked", 1), ("cut", 3)):
        ckpt = None if file is None else folder / "whole" / f"{file}.ckpt"
        module, formats = run(folder / name, ChannelsLast(), ckpt=ckpt, **options)
        content = {
            "weights": {key: value.contiguous() for key, value in module.state_dict().items()},
            "last": all(found == {torch.channels_last} for found in formats),
            "epochs": len(formats),
        }
        torch.save(content, folder / f"{name}{module.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
