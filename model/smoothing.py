"""Means over square neighbourhoods."""

from __future__ import annotations

import torch
from torch import Tensor


def local_mean(x: Tensor, size: int) -> Tensor:
    """The mean of the `size` × `size` pixels around each pixel of `[B, C, H, W]`; fewer at the border. `size` is odd.

    By running sums, as torch's pooling looks at every pixel of every neighbourhood and took a fifth of a training step.
    """
    for axis in (2, 3):
        length = x.shape[axis]
        sums = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.cumsum(axis)], dim=axis)
        places = torch.arange(length, device=x.device)
        end, start = (places + size // 2 + 1).clamp(max=length), (places - size // 2).clamp(min=0)
        count = (end - start).view((-1, 1) if axis == 2 else (1, -1))
        x = (sums.index_select(axis, end) - sums.index_select(axis, start)) / count
    return x
