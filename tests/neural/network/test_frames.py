import torch

from lightning_prune.neural.network.frames import like_autocast, stack_frames, unstack_frames


def test_frames_run_over_time_first():
    x = torch.randn(2, 3, 4, 5, 6)
    frames = stack_frames(x)
    for time in range(4):
        for batch in range(2):
            assert torch.equal(frames[2 * time + batch], x[batch, :, time])
    assert frames.is_contiguous(memory_format=torch.channels_last)
    video = unstack_frames(frames, 2)
    assert torch.equal(video, x)
    assert stack_frames(video).data_ptr() == frames.data_ptr()


def test_autocast_type():
    x, weight = torch.ones(2), torch.ones(2)
    assert like_autocast(x, weight) == (x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert [t.dtype for t in like_autocast(x, weight)] == [torch.bfloat16] * 2
        assert like_autocast(x.double(), weight.double())[0].dtype == torch.float64
