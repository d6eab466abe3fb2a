"""A report's content as the callback collects it."""

from typing import Any

from lightning_prune.report.report_data import LayerRow, ModelFacts, ReportData


def row(name: str, before: int = 16, after: int = 8, **more: Any) -> LayerRow:
    values = {
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
    }
    return LayerRow(**values | more)


def content(layers: int = 3) -> ReportData:
    rows = [row(f"backbone.stage{i}.conv", 16 + i, 8 + i) for i in range(layers)]
    return ReportData(
        layers=rows,
        dense=ModelFacts(3_000_000, 200_000_000, {"val/map50": 0.9, "test/map50": 0.91}, 12.0),
        pruned=ModelFacts(1_500_000, 90_000_000, {"val/map50": 0.89, "test/map50": 0.905}, 7.5),
    )
