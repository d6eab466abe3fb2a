import torch
from torch.utils.data import Subset

from lightning_prune.neural.data.collate import collate_windows
from tests.neural.data.recordings import session
from tests.neural.data.test_windows import assert_equal, windows


def test_stacking_samples_equals_the_batch_fetched_whole():
    whole = windows(session(0), session(1, cells=5), labels="eye")
    rows = [3, 40, 0, 12]
    fetched = whole.__getitems__(rows)
    assert collate_windows(fetched) is fetched
    assert_equal(collate_windows([whole[row] for row in rows]), fetched)
    part = Subset(whole, rows).__getitems__([0, 1, 2, 3])
    assert_equal(collate_windows(part), fetched)
    assert fetched[0]["session"].tolist() == [0, 1, 0, 0]
    assert fetched[0]["stimulus"].is_contiguous()
    assert fetched[0]["stimulus"].dtype == torch.float32
