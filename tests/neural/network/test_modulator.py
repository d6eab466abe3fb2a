import pytest
import torch

from lightning_prune.neural.network.modulator import ConvGRUModulator
from lightning_prune.neural.network.options import ModulatorOptions

SMALL = ModulatorOptions(behavior_dim=7, feature_dim=5, hidden_dim=8, beh_emb_dim=3)


def test_reproduces_the_reference(golden):
    golden.check("modulator", ConvGRUModulator(SMALL))


def test_behavior_of_each_step():
    torch.manual_seed(0)
    modulator = ConvGRUModulator(SMALL)
    features, behavior = torch.randn(2, 5, 3, 4, 4), torch.randn(2, 7)
    everywhere = behavior[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(modulator(features, behavior), modulator(features, everywhere))
    # Of more steps than frames the last are read.
    longer = torch.cat((torch.randn(2, 6, 7), everywhere), dim=1)
    assert torch.equal(modulator(features, longer), modulator(features, everywhere))
    changed = everywhere.clone()
    changed[:, 0] += 1.0
    assert not torch.allclose(modulator(features, changed), modulator(features, everywhere))


@pytest.mark.parametrize("shape", [(2, 6), (3, 7), (2, 2, 7), (7,), (2, 3, 1, 7)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"behavior has shape .* pass \(batch, 7\)"):
        ConvGRUModulator(SMALL)(torch.zeros(2, 5, 3, 4, 4), torch.zeros(shape))
