"""The fall of the group norms, read from rows as a CSV gives them."""

import csv
import io

import pytest

from lightning_prune.runs.norm_drop import norm_drop

# Norms come at the end of epochs; masking begins at step 30; step 10 was repeated by a resume.
METRICS = """step,val/map50_95,regularize/mean_norm,regularize/low_channels,pruning/masked_channels
9,0.1,,,
10,,4.0,0.0,0.0
10,,5.0,0.0,0.0
20,,4.0,0.125,
20,0.3,,,
30,,1.0,0.5,12.0
40,,0.5,0.75,20.0
"""


def test_from_the_first_epoch_to_the_last_before_masks():
    found = norm_drop(csv.DictReader(io.StringIO(METRICS)))
    assert found is not None
    assert (found.first, found.last, found.low_channels) == (5.0, 4.0, 0.125)
    assert found.drop == pytest.approx(0.2)


def test_without_masks_every_row_counts():
    rows = list(csv.DictReader(io.StringIO(METRICS)))
    for row in rows:
        row["pruning/masked_channels"] = ""
    found = norm_drop(rows)
    assert found is not None
    assert found.drop == pytest.approx(0.9)
    assert found.low_channels == 0.75


@pytest.mark.parametrize("rows", [[], [{"step": "1", "train/loss": "2.0"}]])
def test_a_run_that_was_not_regularized_has_none(rows: list[dict[str, str]]):
    assert norm_drop(rows) is None


def test_norms_of_zero_have_no_drop():
    found = norm_drop([{"step": "1", "regularize/mean_norm": "0.0"}])
    assert found is not None
    assert found.drop is None
    assert found.low_channels is None
