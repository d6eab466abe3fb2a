"""Videos as stacks of frames: the layout in which the ResNet computes on a CPU.

A video (B, C, T, H, W) whose memory runs over T, B, H, W, C has contiguous shifts in time, and each
frame is laid out as torch's fastest 2-D kernels want it.
"""

import torch
from torch import Tensor


def stack_frames(x: Tensor) -> Tensor:
    """Return the frames of a video as a batch (T * B, C, H, W), channels last in memory.

    No copy is made of a video that is laid out over T, B, H, W, C.

    >>> stack_frames(torch.zeros(2, 3, 4, 5, 6)).shape
    torch.Size([8, 3, 5, 6])
    """
    frames: Tensor = x.permute(2, 0, 3, 4, 1).contiguous().flatten(0, 1)
    return frames.permute(0, 3, 1, 2)


def unstack_frames(frames: Tensor, batch: int) -> Tensor:
    """Return a video (B, C, T, H, W) from its frames (T * B, C, H, W).

    >>> unstack_frames(torch.zeros(8, 3, 5, 6), batch=2).shape
    torch.Size([2, 3, 4, 5, 6])
    """
    video: Tensor = frames.unflatten(0, (-1, batch))
    return video.permute(1, 2, 0, 3, 4)


def like_autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the type that autocast computes convolutions in, where it is on."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), weight.to(dtype)
    return x, weight
