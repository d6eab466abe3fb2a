import json
from typing import Any

import numpy as np
import pytest

from lightning_prune.functional import find_knee
from tests.golden_vectors import GoldenVectors


def golden(golden_vectors: GoldenVectors) -> list[dict[str, Any]]:
    cases = json.loads((golden_vectors / "03_knee.json").read_text())["cases"]
    return [case | {"x": [int(x) for x in case["x"]]} for case in cases]


def height_above_chord(case: dict[str, Any], position: float) -> float:
    """How far the fitted parabola lies above the diagonal of its bounding box."""
    x = np.array(case["x"], dtype=np.float64)
    fit = np.polyval(np.polyfit(x, case["y"], 2), x)
    i = case["x"].index(int(position))
    return float((fit[i] - fit.min()) / np.ptp(fit) - (x[i] - x[0]) / np.ptp(x))


def test_golden_knees_through_every_point(golden_vectors: GoldenVectors) -> None:
    for case in golden(golden_vectors):
        assert find_knee(case["x"], case["y"], "interp1d") == case["knee_interp1d"], case["tag"]


def test_golden_knees_of_the_parabola(golden_vectors: GoldenVectors) -> None:
    exact = 0
    for case in golden(golden_vectors):
        # Rounding noise decides the reference's answer there: see the vectors' README.
        if case["tag"].startswith(("constant_", "all_one_")):
            continue
        knee, recorded = find_knee(case["x"], case["y"]), case["knee_polynomial2"]
        if knee == recorded:
            exact += 1
            continue
        # The recording machine's rounding took the second of two points that are equally high.
        assert knee is not None
        assert recorded == knee + 1, case["tag"]
        heights = [height_above_chord(case, x) for x in (knee, recorded)]
        assert heights[0] == pytest.approx(heights[1], abs=1e-12), case["tag"]
    assert exact >= 40


def test_the_first_of_two_equally_high_points_is_taken() -> None:
    """Rounding of the values must not move the knee of an even number of points."""
    generator = np.random.default_rng(0)
    x = list(range(2, 64))
    for _ in range(200):
        y = np.sqrt(x) * (1 + 1e-14 * generator.normal(size=62))
        assert find_knee(x, y.tolist()) == 32


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_constant_curve_has_no_knee(value: float) -> None:
    for interpolation in ("polynomial", "interp1d"):
        assert find_knee(range(2, 20), [value] * 18, interpolation) is None


def test_knee_of_a_sharp_corner() -> None:
    x = range(2, 42)
    y = [min(k, 12) / 12 + k * 1e-3 for k in x]
    assert find_knee(x, y, "interp1d") == 12


def test_small_sensitivity_calls_earlier() -> None:
    x = np.arange(2, 30)
    y = 1 - np.exp(-x / 6) + 0.01 * np.sin(x)
    eager = find_knee(x.tolist(), y.tolist(), "interp1d", sensitivity=0.0)
    patient = find_knee(x.tolist(), y.tolist(), "interp1d", sensitivity=20.0)
    assert eager is not None
    assert patient is None or patient >= eager


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 positions and 1 values"):
        find_knee([1, 2], [0.0])
    with pytest.raises(ValueError, match="NaN"):
        find_knee([1, 2, 3], [0.0, float("nan"), 1.0])
    with pytest.raises(ValueError, match="choose"):
        find_knee([1, 2, 3], [0.0, 0.5, 1.0], "spline")
