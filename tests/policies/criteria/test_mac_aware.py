import json

import numpy as np
import pytest
import torch

from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.taylor import Taylor
from tests.golden_vectors import GoldenVectors
from tests.networks import EXAMPLE, Chain, make
from tests.policies.fixtures import residual
from tests.policies.specs import SpecNet


def test_golden_importances_from_the_weights(golden_vectors: GoldenVectors):
    """The group norm below is that of the reference, and with its maximum so are the values."""
    file = golden_vectors / "08_mac_aware.json"
    content, arrays = json.loads(file.read_text()), np.load(file.with_suffix(".npz"))
    for case in content["cases"]:
        if not case["use_macs"] or case["act_only"] or case["type"] == "Other":
            continue
        spec = content["specs"][case["net"]]
        net = SpecNet(spec).eval()
        prefix = f"{case['net']}|param|"
        state = {k.removeprefix(prefix): arrays[k] for k in arrays.files if k.startswith(prefix)}
        net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
        example = torch.zeros(spec["input_shape"])
        groups = trace_groups(net, example)
        macs = MacModel({k: int(v) for k, v in case["layers_mac"].items()}, {}, {}, {}, {})
        names = [name for name in groups if name in case["groups"]]
        criterion = MacAware(None, case["type"].lower(), case["alpha"], case["beta"])
        found = criterion.comparable(net, groups, names, macs, PruningPlan())
        largest = max(max(case["groups"][name]["base"]) for name in names)
        costs = macs.layers.values()
        for name in names:
            golden = case["groups"][name]
            if case["type"] == "Mul":
                expected = torch.tensor(golden["value"]).double()
            else:
                # The reference's maximum is set by hand; ours is that of the groups.
                m, low, high = macs.layers[name], min(costs), max(costs)
                relative = 0.5 if high == low else (m - low) / (high - low)
                base = torch.tensor(golden["base"]).double()
                expected = case["alpha"] * base / largest + (1 - case["alpha"]) * (1 - relative)
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("aggregation", ["sum", "mul"])
def test_channels_of_dear_layers_go_sooner(aggregation: str):
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    plain = GroupNorm().comparable(net, groups, tuple(groups), macs, PruningPlan())
    weighed = MacAware(None, aggregation, alpha=0.5).comparable(
        net, groups, tuple(groups), macs, PruningPlan()
    )
    cost = {name: macs.layers[name] for name in groups}
    # A layer that is tied to a root may be the dearest of all.
    listed = [macs.layers[layer] for group in groups.values() for layer in group.producers]
    low, high = min(listed), max(listed)
    dear, cheap = max(cost, key=cost.get), min(cost, key=cost.get)
    scale = max(float(values.max()) for values in plain.values())
    before = plain[dear].mean() / plain[cheap].mean()
    assert weighed[dear].mean() / weighed[cheap].mean() < before
    if aggregation == "sum":
        for name in groups:
            relative = (cost[name] - low) / (high - low)
            expected = 0.5 * plain[name] / scale + 0.5 * (1 - relative)
            torch.testing.assert_close(weighed[name], expected)
    else:
        for name in groups:
            torch.testing.assert_close(weighed[name], plain[name] * (low / cost[name]) ** 0.5)


def test_masked_channels_do_not_set_the_scale():
    net, groups = residual()
    macs = MacModel.of(net, groups, EXAMPLE)
    with torch.no_grad():
        net.a1[0].weight[0] = 100.0
    held = PruningPlan({"a1.0": torch.arange(1, 6)}, {"a1.0": 6})
    found = MacAware(alpha=1.0).comparable(net, groups, tuple(groups), macs, held)
    alive = [v[held.keep[n]] if n in held.keep else v for n, v in found.items()]
    assert max(float(values.max()) for values in alive) == pytest.approx(1.0)


def test_in_one_group_it_is_the_other_criterion():
    net, groups = residual()
    evidence = Evidence(net, groups["a1.0"])
    assert torch.equal(MacAware().importance(evidence), GroupNorm().importance(evidence))
    assert torch.equal(MacAware(BNScale()).choose(evidence, 3), BNScale().choose(evidence, 3))
    chain = make(Chain)
    with pytest.raises(ValueError, match="no BatchNorm"):
        MacAware(BNScale()).check(chain, trace_groups(chain, EXAMPLE)["conv1"])
    assert MacAware(Taylor()).needs == {"gradients"}
    assert not MacAware().needs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "max"}, "aggregation='max': pass 'sum' or 'mul'"),
        ({"alpha": -0.1}, r"alpha=-0\.1"),
        ({"beta": 0.0}, r"beta=0\.0"),
    ],
)
def test_arguments_are_checked(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MacAware(**options)
