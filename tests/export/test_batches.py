import pytest
import torch

from lightning_prune.export.batches import with_batch


def test_structure_stays_and_other_values_pass():
    example = {"x": torch.arange(6.0).view(2, 3), "scale": 2.0, "parts": (torch.ones(1, 2),)}
    found = with_batch(example, 4)
    assert torch.equal(found["x"], torch.tensor([[0.0, 1.0, 2.0]] * 4))
    assert found["scale"] == 2.0
    assert found["parts"][0].shape == (4, 2)


@pytest.mark.parametrize(
    ("example", "size", "message"),
    [
        (torch.ones(2, 3), 0, "a batch of 0: pass at least 1"),
        (torch.tensor(1.0), 2, r"shape \(\) has no samples"),
        (torch.ones(0, 3), 2, r"shape \(0, 3\) has no samples"),
    ],
)
def test_refusals(example: torch.Tensor, size: int, message: str):
    with pytest.raises(ValueError, match=message):
        with_batch(example, size)
