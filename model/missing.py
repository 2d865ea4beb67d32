"""Missing values of a window: NaN in, a guess or a mark out.

Source: Z. Che et al., Recurrent neural networks for multivariate time series with missing values, Scientific Reports 8,
2018, section "Existing RNN models for time series classification with missing values": the last observation carried
forward, and zeros with a mask beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def carry_forward(x: Tensor) -> Tensor:
    """Windows `[B, T, F]` with each missing value replaced by the feature's last one before it, else its first after.

    A feature that is missing throughout becomes 0, its median.
    """
    seen = ~torch.isnan(x)
    if bool(seen.all()):
        return x
    steps = torch.arange(x.shape[1], device=x.device).view(1, -1, 1).expand_as(x)
    last = torch.where(seen, steps, -1).cummax(dim=1).values  # (B, T, F)
    first = torch.where(seen, steps, x.shape[1]).amin(dim=1, keepdim=True).clamp(max=x.shape[1] - 1)
    return x.gather(1, torch.where(last >= 0, last, first.expand_as(last))).nan_to_num(0.0)


def marked(x: Tensor) -> Tensor:
    """Windows `[B, T, F]` as networks read them: zeros where a value is missing, and which are there: `[B, T, 2F]`."""
    seen = ~torch.isnan(x)
    return torch.cat([torch.where(seen, x, torch.zeros_like(x)), seen.to(x.dtype)], dim=2)


def mean_of_seen(values: Tensor, seen: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean of `values` along `dim` where `seen`; 0 where nothing is."""
    weight = seen.to(values.dtype)
    return (values * weight).sum(dim) / weight.sum(dim).clamp(min=1.0)
