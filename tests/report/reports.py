"""A report's content as the callback collects it."""

from typing import Any


def row(name: str, before: int = 16, after: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "block": name.rsplit(".", 1)[0],
        "group": name,
        "channels_before": before,
        "channels_after": after,
        "active_channels": after,
        "pruning_ratio": 1 - after / before,
        "knee": 9,
        "bound": "knee",
        "status": "pruned",
        "reason": "",
        **more,
    }


def content(layers: int = 3) -> dict[str, Any]:
    rows = [row(f"backbone.stage{i}.conv", 16 + i, 8 + i) for i in range(layers)]
    return {
        "layers": rows,
        "dense": {"parameters": 3_000_000, "macs": 2e8, "latency_ms": 12.0,
                  "metrics": {"val/map50": 0.9, "test/map50": 0.91}},
        "pruned": {"parameters": 1_500_000, "macs": 9e7, "latency_ms": 7.5,
                   "metrics": {"val/map50": 0.89, "test/map50": 0.905}},
        "cut": None,
    }  # fmt: skip
