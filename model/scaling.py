"""Observations of any unit to comparable numbers, by what half of the normal ones do.

Sources:
- F. Hampel, The influence curve and its role in robust estimation, JASA 69, 1974: median and interquartile range.
- The range beyond 4 is compressed as in P. Huber, Robust statistics, 1981, section 4.5 is cut off: linear where normal
  observations are, logarithmic beyond, so that a burst is not all that a distance sees, yet a larger one stays larger.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution, in standard deviations
LINEAR_UP_TO = 4.0  # standard deviations
LARGEST = 1e30  # float32 still squares what is left of it after the logarithm


class RobustScaling(nn.Module):
    """Median to 0, the interquartile range of a normal distribution to 1.349."""

    centre: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Takes normal observations `[N, F]`; NaN is a missing value.

        Where half of the values agree (a valve that is mostly shut), the standard deviation stands in; where all do, a
        thousandth of the value, so that the first change of a constant is seen but stays finite. A feature that was
        never seen keeps 0 and 1.
        """
        values = rows.double()
        at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=rows.device)
        quartiles = torch.nanquantile(values, at, dim=0).nan_to_num(0.0)  # (3, F)
        centred = values - values.nanmean(dim=0)
        deviation = centred.square().nanmean(dim=0).sqrt().nan_to_num(1.0)  # (F,)
        spread = (quartiles[2] - quartiles[0]) / IQR_OF_NORMAL
        spread = torch.where(spread > 0, spread, deviation)
        floor = quartiles[1].abs() * 1e-3 + 1e-6
        self.centre = quartiles[1].to(rows.dtype)
        self.scale = torch.where(spread > floor * 1e-3, spread, floor).to(rows.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Observations `[…, F]` in their units to scaled ones; NaN stays NaN."""
        scaled = (x.float() - self.centre) / self.scale
        size = scaled.abs().clamp(max=LARGEST)
        beyond = LINEAR_UP_TO * (1.0 + torch.log(size.clamp(min=LINEAR_UP_TO) / LINEAR_UP_TO))
        return torch.where(size > LINEAR_UP_TO, scaled.sign() * beyond, scaled)
