from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_prune.policies.selection.clusterer import group_separability
from lightning_prune.policies.selection.decision_record import (
    DecisionRecord,
    separability_of,
    source_statistics,
)
from lightning_prune.report.decision_store import write_decision
from lightning_prune.report.history import History
from lightning_prune.report.stored_decision import read_decision
from tests.policies.fixtures import residual, seen
from tests.report.page.runs import record


def test_what_is_written_is_read_again(tmp_path):
    decision, found = record(12, 5, 6, "net.a:2")
    write_decision(tmp_path, decision, found, ["a", "b"])
    stored = read_decision(tmp_path, "net.a:2")
    assert stored is not None
    assert stored.facts["keep"] == decision.keep.tolist()
    assert stored.facts["mss"] == [
        [k, v] for k, v in zip(found.clustering.k_values.tolist(), found.clustering.mss.tolist(),
                               strict=True)
    ]  # fmt: skip
    assert stored.separability == pytest.approx(found.clustering.matrix.numpy(), abs=1 / 250)
    assert stored.arrays["importance"] == pytest.approx(found.importance.numpy())
    mean = found.sources[0].moments.mean.numpy()
    assert stored.arrays["mean_0"] == pytest.approx(mean, rel=1e-6)
    assert read_decision(tmp_path, "net.b") is None


def test_damaged_arrays_leave_the_facts(tmp_path):
    decision, found = record(8, 3, 4, "net.a")
    path = write_decision(tmp_path, decision, found, [])
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 nothing")
    stored = read_decision(tmp_path, "net.a")
    assert stored is not None
    assert stored.arrays == {}
    path.write_text("{")
    assert read_decision(tmp_path, "net.a") is None


def test_separability_follows_from_what_is_kept_of_tied_layers():
    net, groups = residual()
    group = groups["project.0"]
    found = seen(net, group.producers)
    moments = {layer: found.of(layer) for layer in group.producers}
    kept = source_statistics(group, moments)
    assert [source.layer for source in kept] == [member.layer for member in group.sources]
    expected = group_separability(group, moments)
    assert torch.equal(separability_of(kept, group.channels), expected)


def test_a_later_step_keeps_what_was_known_of_channels_that_are_gone():
    first = DecisionRecord("GroupNorm", torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    now = DecisionRecord("GroupNorm", torch.tensor([0.0, 5.0]), torch.tensor([0.0, 6.0]))
    held = torch.tensor([False, True])
    later = now.behind(first, held)
    assert later.norms.tolist() == [1.0, 5.0]
    assert later.importance.tolist() == [3.0, 6.0]
    assert now.behind(first, None) is now


def test_a_resumed_run_takes_what_it_does_not_know_from_the_file(tmp_path):
    decision, found = record(8, 3, 4, "net.a")
    write_decision(tmp_path, decision, found, [])
    held = torch.arange(8) >= 2
    now = replace(found, norms=found.norms + 1, importance=found.importance + 1)
    resumed = now.behind(None, held)
    assert resumed.norms[:2].isnan().all()
    write_decision(tmp_path, decision, resumed, [])
    whole = now.behind(found, held)
    stored = read_decision(tmp_path, "net.a")
    np.testing.assert_array_equal(stored.arrays["norms"], whole.norms.float().numpy())
    np.testing.assert_array_equal(stored.arrays["importance"], whole.importance.numpy())
    write_decision(tmp_path / "elsewhere", decision, resumed, [])
    stored = read_decision(tmp_path / "elsewhere", "net.a")
    assert stored.arrays["norms"][:2].tolist() == [0.0, 0.0]


def test_a_resumed_run_writes_over_epochs_behind_its_checkpoint():
    history = History()
    for epoch in range(3):
        history.add(epoch, {"a": float(epoch)}, 0.1, 1.0)
    history.add(1, {"a": 9.0, "b": float("nan")}, None, 0.5)
    assert history.epochs == [0, 1]
    assert history.metrics == {"a": [0.0, 9.0], "b": [None, None]}
    assert history.learning_rate == [0.1, None]
    assert np.isclose(history.macs_fraction, [1.0, 0.5]).all()
