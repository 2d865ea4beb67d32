"""What a stretch of each feature is like: level, spread, roughness, extremes and slope.

Source: C. Lubba et al., catch22: canonical time-series characteristics, Data Mining and Knowledge Discovery 33, 2019:
few summaries of a series serve as well as thousands; these are the plainest, and each can be read by a person.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.gaussian import ShrunkGaussian

SUMMARIES = 6
LEAST_SPREAD = 0.05  # scaled units: below it a feature is at rest, and how much so tells nothing
LEAST_ROUGHNESS = 0.02
LEAST_DEVIATION = 0.1


def summaries(x: Tensor) -> Tensor:
    """Prepared stretches `[B, L, F]` without missing values, L >= 2, to `[B, 6F]`."""
    steps = torch.arange(x.shape[1], device=x.device, dtype=x.dtype).view(1, -1, 1)
    steps = steps - steps.mean()
    spread = x.var(dim=1, unbiased=False).add(LEAST_SPREAD**2).sqrt().log()
    roughness = x.diff(dim=1).square().mean(dim=1).add(LEAST_ROUGHNESS**2).sqrt().log()
    slope = (x * steps).sum(dim=1) / steps.square().sum() * x.shape[1]
    return torch.cat([x.mean(dim=1), spread, roughness, x.amax(dim=1), x.amin(dim=1), slope], dim=1)  # (B, 6F)


class Shape(nn.Module):
    """Mahalanobis distance of the summaries of a window's newest `length` steps from normal ones."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, length: int, features: int, components: int) -> None:
        super().__init__()
        self.length = length
        width = SUMMARIES * features
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.gaussian = ShrunkGaussian(width, min(components, width))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Takes prepared normal windows `[N, T, F]` without missing values."""
        found = summaries(x[:, -self.length :])
        self.mean = found.mean(dim=0)
        self.deviation = found.std(dim=0, unbiased=False) + LEAST_DEVIATION
        self.gaussian.fit((found - self.mean) / self.deviation)

    def distance(self, x: Tensor) -> Tensor:
        """Prepared windows `[B, T, F]` without missing values to `[B]`, >= 0, about 1 for a normal one."""
        found = (summaries(x[:, -self.length :]) - self.mean) / self.deviation
        return self.gaussian.distance(*self.gaussian.coordinates(found))
