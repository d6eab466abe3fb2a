import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from tests.networks import EXAMPLE, Concat, make

pytest.importorskip("onnxruntime")
REPOSITORY = Path(__file__).resolve().parents[2]


def test_cuts_and_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform widths respect blocks and budget, the cut has them, models take turns."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from payoff import cut, in_turns, largest, uniform

    network = make(Concat).eval()
    groups = trace_groups(network, EXAMPLE)
    macs = MacModel.of(network, groups, EXAMPLE)
    widths = uniform(groups, macs, 0.6, lambda channels: 4 if channels > 4 else 2)
    assert all(
        width % (4 if groups[name].channels > 4 else 2) == 0 or width == groups[name].channels
        for name, width in widths.items()
    )
    assert 0.3 < macs.remaining(widths) / macs.total <= 0.6
    small = cut(network, largest(network, groups, widths), EXAMPLE.shape[-1])
    assert count_macs(small, EXAMPLE) == macs.remaining(widths)
    seen: list[str] = []
    times = in_turns(
        {"a": lambda _: seen.append("a"), "b": lambda _: seen.append("b")}, torch.zeros(1), rounds=2
    )
    assert seen == ["a", "b"] * 3
    assert set(times) == {"a", "b"}


@pytest.mark.slow
def test_quick_run_compares_cuts_of_half_the_macs(tmp_path: Path) -> None:
    output = tmp_path / "payoff.json"
    command = [sys.executable, "benchmarks/payoff.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = json.loads(output.read_text())["rows"]["n"]
    assert [row["model"] for row in rows] == [
        "dense", "global, round 8", "global, round 8, fast", "global, round 8, fast, moved",
        "uniform, round 16, narrow 8", "torch-pruning local, round 8"
    ]  # fmt: skip
    assert set(rows[0]["times_faster"].values()) == {1.0}
    for row in rows[1:]:
        assert set(row["ms"]) == {"onnxruntime b1", "eager b1"}
        assert all(ms > 0 for ms in row["ms"].values())
        ours = not row["model"].startswith("torch-pruning")
        assert (0.4 < row["macs"] <= 0.5) if ours else abs(row["macs"] - 0.5) < 0.15
