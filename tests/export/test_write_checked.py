"""A file is written only where every comparison agrees."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prune.export.formats import ExportFormat
from lightning_prune.export.write_checked import allowed_difference, write_checked

TREE = ExportFormat("Tree", ".tree", "The forest", "nowhere:nothing")
IMAGE = torch.zeros(1, 3, 64, 64)


def test_free_sizes_are_compared_on_a_rectangle_too(tmp_path: Path):
    seen = []

    def difference(example: Tensor, sizes: Sequence[int]) -> float:
        seen.append((tuple(example.shape[2:]), tuple(sizes)))
        return 0.25 if len(seen) == 2 else 0.0

    path = tmp_path / "new" / "net.tree"
    assert write_checked(path, b"net", TREE, difference, IMAGE, None, 0.3, size_step=32) == 0.25
    assert path.read_bytes() == b"net"
    assert seen == [((64, 64), (1, 3)), ((64, 96), (1,))]


@pytest.mark.parametrize("found", [0.5, math.nan, math.inf])
def test_what_differs_leaves_the_earlier_file(found: float, tmp_path: Path):
    path = tmp_path / "net.tree"
    path.write_bytes(b"earlier")
    with pytest.raises(AssertionError, match=f"The forest and .* differ by {found:.3g} .*is 0.3"):
        write_checked(path, b"net", TREE, lambda *_: found, IMAGE, 2, 0.3)
    assert path.read_bytes() == b"earlier"


@pytest.mark.parametrize("tolerance", [-1.0, math.nan])
def test_a_tolerance_that_is_none(tolerance: float):
    with pytest.raises(ValueError, match="pass a fraction of at least 0"):
        allowed_difference(tolerance, half=False)
    assert allowed_difference(None, half=True) == 0.1
