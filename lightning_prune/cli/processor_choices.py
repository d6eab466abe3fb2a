"""What a run on a processor chooses once, and keeps: precision and memory format."""

import platform
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from lightning_prune.runs.say import say

_FULL, _HALF = "32-true", "bf16-mixed"


def choose_for_processor(cfg: DictConfig, model: Any, stored: Mapping[str, Any] | None) -> None:
    """Fill in `trainer.precision` and `callbacks.channels_last.enabled` where they are null.

    A model asks for both by an attribute ``fast_on_cpu`` that is true. Then channels last is used
    on every processor, and bf16-mixed where it multiplies bf16 matrices by itself.

    Args:
        cfg: The configuration.
        model: The model that was built from it.
        stored: The configuration that a run had before it was interrupted: its values count, for
            this may be another processor. None: a new run.
    """
    on_cpu = trains_on_cpu(cfg.trainer.get("accelerator"))
    pays = on_cpu and bool(getattr(model, "fast_on_cpu", False))
    if cfg.trainer.get("precision", _FULL) is None:
        fastest = _HALF if pays and has_fast_bf16() else _FULL
        before = fastest if stored is None else _at(stored, "trainer", "precision")
        cfg.trainer.precision = before or _FULL
        if stored is None and before == _HALF:
            say(f"precision: {_HALF}, as this processor is fast in it (trainer.precision={_FULL})")
    callback = cfg.callbacks.get("channels_last") if cfg.get("callbacks") else None
    if isinstance(callback, DictConfig) and callback.get("enabled", False) is None:
        place = ("callbacks", "channels_last", "enabled")
        callback.enabled = pays if stored is None else bool(_at(stored, *place))
    if on_cpu and str(cfg.trainer.get("precision")).startswith("bf16") and not has_fast_bf16():
        say(
            f"trainer.precision={cfg.trainer.precision}: this processor has no instructions for "
            f"bf16 matrices, so that it may take several times as long as {_FULL}; the results "
            f"hold. trainer.precision={_FULL} is faster"
        )


def trains_on_cpu(accelerator: Any) -> bool:
    """Return whether a Trainer with this accelerator computes on the processor."""
    if accelerator in ("auto", None):
        # Lightning's auto also finds what torch counts among its accelerators, such as MPS.
        return not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return bool(accelerator == "cpu")


def has_fast_bf16() -> bool:
    """Return whether this processor multiplies bf16 matrices faster than those of 32 bits.

    These are x86 processors with AMX. With AVX512-BF16 alone a step of YOLOv8n took as long as in
    32 bits, without it two to eight times as long (docs/log.md).
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    # In earlier versions of torch; all processors with tiles multiply bf16 in them.
    found = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(found and found())


def _at(config: Mapping[str, Any], *keys: str) -> Any:
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
