"""Why a channel stayed: numbers by hand, and draws that agree where it is clear."""

import numpy as np
import pytest
import torch

from lightning_prune.cli.why import main
from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.selection import choose_channels
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.decision_record import (
    DecisionRecord,
    SourceMoments,
    separability_of,
)
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.decision_store import write_decision
from lightning_prune.report.stored_decision import StoredDecision, read_decision
from lightning_prune.report.why import why
from tests.report.page.runs import write_run


def clear(folder, objects):
    """Twelve channels of four profiles, three of each, one of which is much the strongest."""
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(5).repeat(objects)
    profiles = torch.tensor([[0, 0, 4, 4, 0], [4, 0, 0, 0, 4], [0, 4, 0, 4, 8], [8, 0, 4, 0, 0.0]])
    means = profiles.repeat_interleave(3, 0).T
    samples = means[label] + torch.randn(len(label), 12, generator=draw)
    sources = (SourceMoments("conv", torch.arange(12), class_moments(samples, label, 5)),)
    clustering = cluster_channels(separability_of(sources, 12), embedding="none")
    weights = torch.tensor([3.0, 1, 1] * 4, dtype=torch.float64)
    chosen = choose_channels(clustering, weights, 4)
    decision = GroupDecision("conv", chosen.keep, 12, clustering.knee, "knee", "pruned", "")
    clusterer = ChannelClusterer(embedding="none")
    record = DecisionRecord("Separability", weights, weights, clustering, sources, clusterer)
    write_decision(folder, decision, record, list("abcde"))
    found = read_decision(folder, "conv")
    assert found is not None
    return found


def test_what_is_clear_is_sure(tmp_path):
    stored = clear(tmp_path, objects=400)
    stays, goes = why(stored, 3, draws=10), why(stored, 4, draws=10)
    assert (stays.kept, stays.frequency, stays.rank) == (True, 1.0, 1)
    assert (goes.kept, goes.frequency, goes.rank) == (False, 0.0, 5)
    assert goes.cluster == (3, 4, 5)
    assert stays.lines[-1] == "it stays in 100% of 10 draws of other objects: sure"
    assert "channel 3 stays for it; others: 4, 5" in "\n".join(goes.lines)


def test_few_objects_are_not_sure(tmp_path):
    stored = clear(tmp_path, objects=400)
    few = {**stored.arrays, "count_0": np.full(5, 3)}
    unsure = StoredDecision(stored.facts, few)
    found = [why(unsure, channel, draws=20).frequency for channel in range(12)]
    assert sum(found) == pytest.approx(4), "four stay in every draw"
    assert any(0.1 < frequency < 0.9 for frequency in found)


def test_the_spread_of_the_draws_is_that_of_a_poisson_bootstrap():
    from lightning_prune.report import why as room

    random = np.random.default_rng(0)
    samples = random.normal(2.0, 1.5, 200)
    means, variances = [], []
    for _ in range(3000):
        counts = random.poisson(1, 200)
        mean = (counts * samples).sum() / counts.sum()
        means.append(mean)
        variances.append((counts * (samples - mean) ** 2).sum() / counts.sum())
    generator = torch.Generator().manual_seed(0)
    one = [
        torch.tensor([[value]], dtype=torch.float64) for value in (samples.mean(), samples.var())
    ]
    drawn = [room._drawn(torch.tensor([200.0]).double(), *one, generator) for _ in range(3000)]
    assert np.std([float(d.mean) for d in drawn]) == pytest.approx(np.std(means), rel=0.1)
    assert np.std([float(d.variance) for d in drawn]) == pytest.approx(np.std(variances), rel=0.15)


def test_weights_alone_have_margins_and_no_draws():
    facts = {
        "group": "conv", "channels": 4, "keep": [0, 2], "bound": "ratio", "clusterer": None,
        "sources": [],
    }  # fmt: skip
    values = np.array([4.0, 1.0, 3.0, 2.0])
    found = why(StoredDecision(facts, {"importance": values, "norms": values[::-1]}), 3)
    assert (found.rank, found.edge, found.frequency, found.norm) == (3, (3.0, 2.0), None, (4.0, 1))
    assert "the weakest that stays has 3, the strongest that is cut 2" in found.lines
    with pytest.raises(ValueError, match="channel 4: conv had 4 channels, 0 to 3"):
        why(StoredDecision(facts), 4)


def test_the_command_finds_layers_by_their_ends(tmp_path, capsys):
    write_run(tmp_path)
    data = [path.stem for path in (tmp_path / "report_data").glob("*.json")]
    group = next(name for name in sorted(data) if name != "samples")
    main([str(tmp_path), f"{group}.0", "--draws", "3"])
    said = capsys.readouterr().out
    assert said.startswith(f"{group}, channel 0: ")
    assert "of 3 draws of other objects" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["conv"], "pass a layer and the place of a channel"),
        (["elsewhere.1"], "the run pruned no layer elsewhere"),
        (["a.1", "--draws", "-1"], "--draws -1: pass at least 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, words, said, capsys):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
