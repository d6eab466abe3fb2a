import itertools
import json

import numpy as np
import pytest
import torch

from lightning_prune.functional import filter_norm, norm_scale
from lightning_prune.functional.importance import mac_aware
from tests.golden_vectors import GoldenVectors


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (5, 4), (6, 2, 1, 3, 3)])
@pytest.mark.parametrize("p", [1, 2])
def test_equals_numpy(shape: tuple[int, ...], p: int) -> None:
    weight = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    flat = weight.detach().double().numpy().reshape(shape[0], -1)
    ours = filter_norm(weight, p)
    assert not ours.requires_grad
    np.testing.assert_allclose(ours, np.linalg.norm(flat, ord=p, axis=1), rtol=1e-12)


def test_norm_scale_is_the_absolute_value() -> None:
    norm = torch.nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([-1.5, 0.0, 2.0])
    assert norm_scale(norm.weight).tolist() == [1.5, 0.0, 2.0]


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"channels, \.\.\."):
        filter_norm(torch.zeros(3))
    with pytest.raises(ValueError, match="p=3: pass 1 or 2"):
        filter_norm(torch.zeros(3, 3), p=3)
    with pytest.raises(ValueError, match=r"\(channels,\)"):
        norm_scale(torch.zeros(3, 3))


def test_golden_mac_aware(golden_vectors: GoldenVectors) -> None:
    cases = json.loads((golden_vectors / "08_mac_aware.json").read_text())["cases"]
    compared = 0
    for case in cases:
        # Elsewhere the reference returns the plain importance: MACs off, or an unknown type.
        if not case["use_macs"] or case["act_only"] or case["type"] == "Other":
            assert all(g["base"] == g["value"] for g in case["groups"].values())
            continue
        macs = case["layers_mac"]
        for name, group in case["groups"].items():
            found = mac_aware(
                torch.tensor(group["base"]),
                macs[name],
                (min(macs.values()), max(macs.values())),
                case["current_max"],
                case["type"].lower(),
                case["alpha"],
                case["beta"],
            )
            torch.testing.assert_close(found, torch.tensor(group["value"]), rtol=1e-5, atol=1e-7)
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("aggregation", ["sum", "mul"])
def test_the_dearer_the_layer_the_less_its_channels_count(aggregation: str) -> None:
    importance = torch.tensor([0.5, 2.0, 1.0])
    found = [mac_aware(importance, macs, (10, 1000), 2.0, aggregation) for macs in (10, 100, 1000)]
    for cheap, dear in itertools.pairwise(found):
        assert bool((cheap > dear).all())
        assert torch.equal(cheap.argsort(), importance.argsort())


def test_mac_aware_rejects_what_does_not_fit() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="aggregation='max': pass 'sum' or 'mul'"):
        mac_aware(one, 1, (1, 1), 1.0, "max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"alpha=1\.5: pass a number in \[0, 1\], the weight"):
        mac_aware(one, 1, (1, 1), 1.0, alpha=1.5)
    with pytest.raises(ValueError, match="beta=0"):
        mac_aware(one, 1, (1, 1), 1.0, beta=0)
    with pytest.raises(ValueError, match="macs=3 must be in"):
        mac_aware(one, 3, (1, 2), 1.0)
