"""Means over square neighbourhoods."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def local_mean(x: Tensor, size: int) -> Tensor:
    """The mean of the `size` × `size` pixels around each pixel of `[B, C, H, W]`; fewer at the border. `size` is odd.

    By running sums, as torch's pooling looks at every pixel of every neighbourhood and took a fifth of a training step.
    """
    for axis in (2, 3):
        length, reach = x.shape[axis], size // 2
        sums = x.cumsum(axis)
        zeros = torch.zeros_like(sums.narrow(axis, 0, 1)).expand(_resized(sums, axis, reach + 1))
        beyond = sums.narrow(axis, length - 1, 1).expand(_resized(sums, axis, reach))
        padded = torch.cat([zeros, sums, beyond], dim=axis)
        window = padded.narrow(axis, size, length) - padded.narrow(axis, 0, length)
        x = window / _counts(length, size, x.device).view((-1, 1) if axis == 2 else (1, -1))
    return x


def _resized(x: Tensor, axis: int, length: int) -> list[int]:
    shape = list(x.shape)
    shape[axis] = length
    return shape


@lru_cache(maxsize=64)
def _counts(length: int, size: int, device: torch.device) -> Tensor:
    """How many of the `size` pixels around each of `length` there are: `[length]` float32."""
    with torch.inference_mode(False):  # or what was first asked for while scoring couldn't be used in training
        places = torch.arange(length, device=device)
        return (places + size // 2).clamp(max=length - 1) - (places - size // 2).clamp(min=0) + 1.0
