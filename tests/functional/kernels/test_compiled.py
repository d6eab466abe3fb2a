import subprocess
import sys

import pytest
from numba.core import caching

from lightning_prune.functional.kernels.compiled import compiled


def add(a: int, b: int) -> int:
    return a + b


def test_compiles_where_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled(add)(2, 3) == 5


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("numba.njit", fail)
    with pytest.raises(RuntimeError, match="something else"):
        compiled(add)


def test_the_floor_stands_without_lightning_and_hydra() -> None:
    """Only the libraries of the floor are loaded, and the functions work."""
    script = (
        "import sys\n"
        "for name in ('lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'torch_pruning'):\n"
        "    sys.modules[name] = None\n"
        "import torch, lightning_prune.functional as F\n"
        "print(F.kmedoids(F.dissimilarity(torch.tensor([[0.], [1.], [9.]])), 2).loss)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "1.0"
