"""How far is the nearest of the normal windows?

Source: S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000:
distance to the k nearest neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WindowMemory(nn.Module):
    """Euclidean distance to the nearest of `rows` remembered points of `width` numbers."""

    points: Tensor

    def __init__(self, rows: int, width: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("points", torch.zeros(rows, width))

    def remember(self, points: Tensor) -> None:
        """Takes `[rows, width]` points of normal records; forgets those before."""
        self.points = points.detach().clone()

    def distance(self, points: Tensor) -> Tensor:
        """Mean distance of `[N, width]` to the nearest: `[N]`, >= 0."""
        # In float64, as the difference of large squares would drown the small distances that normal records have.
        asked, known = points.double(), self.points.double()
        squares = asked.square().sum(1, keepdim=True) + known.square().sum(1) - 2.0 * asked @ known.T  # (N, rows)
        nearest = squares.topk(min(self.neighbours, len(known)), largest=False).values.clamp(min=0.0)
        return nearest.sqrt().mean(dim=1).float()
