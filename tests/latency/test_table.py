"""Tables of made-up machines, whose law is found again; and what is refused."""

import json

import numpy as np
import pytest
import torch

from lightning_prune.functional.widths.fit import AllowedWidths, fit_widths
from lightning_prune.graph.macs import MacModel
from lightning_prune.latency.table import LatencyTable, table_of
from lightning_prune.latency.whole_models import random_widths
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from tests.latency.networks import EXAMPLE, job_of, made_up_times, small, time_of
from tests.networks import random_plan

FACTORS = (0.2, 1.3, 1e-6, 0.0)


@pytest.fixture(scope="module")
def made():
    net, groups, macs = small()
    job = job_of(net, groups, plans=5)
    times = made_up_times(net, job, macs, FACTORS)
    return net, groups, macs, job, table_of(json.loads(json.dumps(job.description())), times, macs)


def test_every_layer_has_a_kernel(made):
    _, _, macs, job, table = made
    assert set(job.layers) == set(macs.layers)
    assert [times.outputs[-1] for times in table.kernels] == [24, 24, 40, 5]
    assert [times.inputs[-1] for times in table.kernels] == [3, 1, 24, 64]


def test_the_law_of_the_machine_is_found(made):
    net, groups, macs, _, table = made
    np.testing.assert_allclose(table.factors[:3], FACTORS[:3], rtol=1e-5)
    assert max(table.errors) < 1e-6
    model, random = table.model(macs), torch.Generator().manual_seed(7)
    for _ in range(10):
        widths = random_widths(groups, list(groups), 8, random)
        assert model.remaining(widths) == pytest.approx(time_of(net, macs, widths, FACTORS))
    assert model.total == pytest.approx(table.dense)


def test_many_choices_at_once_are_each_alone(made):
    _, groups, macs, _, table = made
    model, names = table.model(macs), list(groups)
    random = torch.Generator().manual_seed(1)
    drawn = [random_widths(groups, names, 8, random) for _ in range(6)]
    widths = np.array([[float(one[name]) for name in names] for one in drawn])
    alone = [model.remaining(one) for one in drawn]
    np.testing.assert_allclose(model.costs_of(names)(widths), alone)
    cost = model.cost_of(names)
    np.testing.assert_allclose([cost(row.astype(int).tolist()) for row in widths], alone)


def test_a_cut_network_costs_what_was_foretold(made):
    """The kernels of the network that is really cut, timed by the law."""
    net, groups, macs, _, table = made
    plan = random_plan(groups, seed=3)
    cut = copy_module(net)
    cut_channels(cut, groups, plan)
    again = build_groups(cut, EXAMPLE)
    own = MacModel.of(cut, again, EXAMPLE)
    assert table.model(macs).remaining(plan.widths()) == pytest.approx(
        time_of(cut, own, {}, FACTORS),
        rel=0.1,  # between the widths of the grid
    )
    with pytest.raises(ValueError, match=r"another network: layer 'stem\.0'"):
        table.model(own)


def test_widths_meet_a_budget_of_milliseconds(made):
    _, groups, macs, _, table = made
    model, names = table.model(macs), list(groups)
    allowed = [AllowedWidths(range(8, groups[n].channels + 1, 8), [0.0] * 9) for n in names]
    allowed = [AllowedWidths(one.widths, one.ranks[: len(one.widths) - 1]) for one in allowed]
    cost, budget = model.cost_of(names), 0.8 * model.total
    found = fit_widths([8] * len(names), allowed, cost, budget)
    assert cost(found) <= budget
    for place, (width, own) in enumerate(zip(found, allowed, strict=True)):
        wider = [w for w in own.widths if w > width][:1]
        assert not wider or cost([*found[:place], wider[0], *found[place + 1 :]]) > budget


def test_a_table_goes_through_a_file(made):
    table = made[-1]
    read = LatencyTable.of_content(json.loads(json.dumps(table.content())), "file")
    assert read.content() == table.content()
    assert read.digest == table.digest
    assert "1 thread of none" in table.in_words()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"kernels": []}, {"factors": [1.0]}, {"layers": {"stem.0": 99}},
        {"dense": "fast"},
        {"kernels": [{"outputs": [8], "inputs": [8], "times": [[]], "block": 8}]},
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(made, change):
    with pytest.raises(ValueError, match="mine is no latency table of version 1"):
        LatencyTable.of_content(made[-1].content() | change, "mine")
    for other in ([], None, "text"):
        with pytest.raises(ValueError, match="no latency table"):
            LatencyTable.of_content(other, "mine")


def test_times_of_another_job_are_refused(made):
    net, _, macs, job, _ = made
    times = made_up_times(net, job, macs)
    with pytest.raises(ValueError, match="3 whole networks were timed and 6 belong"):
        table_of(job.description(), times | {"whole": times["whole"][:3]}, macs)


def test_noise_is_levelled_and_said(made):
    net, _, macs, job, _ = made
    random, times = np.random.default_rng(0), made_up_times(net, job, macs, FACTORS)
    times["whole"] = [t * (1 + 0.05 * random.standard_normal()) for t in times["whole"]]
    for one in times["kernels"]:
        one |= {width: t * (1 + 0.1 * random.standard_normal()) for width, t in one.items()}
    table = table_of(job.description(), times, macs)
    assert 0.001 < max(table.errors) < 0.5
    for kernel in table.kernels:
        assert (np.diff(kernel.times, axis=0) >= 0).all()
        assert (np.diff(kernel.times, axis=1) >= 0).all()
    assert min(table.factors) >= 0
