"""What is usual at each place: the edges of a part are stranger than its middle on every good picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.smoothing import local_mean

GRID = 16  # cells a side


class UsualPlaces(nn.Module):
    """Mean and spread of a map by place, over normal pictures."""

    usual: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(1, 1, GRID, GRID))
        self.register_buffer("spread", torch.ones(1, 1, GRID, GRID))

    @torch.no_grad()
    def fit(self, maps: Tensor) -> None:
        """Takes the maps `[N, h, w]` of normal pictures."""
        mean = functional.adaptive_avg_pool2d(maps.mean(dim=0)[None, None], GRID)
        square = functional.adaptive_avg_pool2d(maps.square().mean(dim=0)[None, None], GRID)
        # Few pictures say little about one place, so that it borrows from its neighbours, and a little from all.
        self.usual, square = local_mean(mean, 3), local_mean(square, 3)
        variance = (square - self.usual.square()).clamp(min=0.0)
        self.spread = (variance + 0.1 * variance.mean() + 1e-6).sqrt()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `[B, h, w]` to how many spreads each place is above what is usual for it; same shape."""
        usual, spread = (
            functional.interpolate(grid, maps.shape[1:], mode="bilinear")[:, 0] for grid in (self.usual, self.spread)
        )
        return (maps - usual) / spread
