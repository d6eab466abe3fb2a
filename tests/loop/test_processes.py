"""Several processes with batches of their own do what one does with all of them."""

import os
import subprocess
import sys

import pytest
import torch

from lightning_prune.loop.processes import process_count
from tests.conftest import REPOSITORY
from tests.loop.two_processes import pruned

METHODS = ["FisherImportance", "TaylorImportance", "APoZImportance"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.loop.two_processes", str(made), *METHODS]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return made


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_mask_refit_and_estimate_as_one_does(method, folder, tmp_path):
    ranks = [torch.load(folder / f"{method}_rank{n}.pt", weights_only=True) for n in (0, 1)]
    alone = pruned(tmp_path, method, [0, 2, 1, 3])
    assert any(len(keep) < 8 for keep in alone["plan"].values())
    for found in ranks:
        assert found["plan"].keys() == alone["plan"].keys()
        for name, keep in alone["plan"].items():
            assert torch.equal(found["plan"][name], keep)
        for name, value in alone["weights"].items():
            if name.endswith("num_batches_tracked"):
                continue  # each process has seen half of them
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-5)
    for name, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][name]), name


def test_there_is_one_process_without_a_group():
    assert process_count() == 1
