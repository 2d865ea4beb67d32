"""What a detector asks of the normal records it remembers: how far is the nearest, and is that far around there?

Sources:
- S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000:
  distance to the k nearest neighbours.
- M. Breunig et al., LOF: identifying density-based local outliers, SIGMOD 2000: that distance relative to the
  neighbours' own, here with means in place of reachability.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NeighbourMemory(nn.Module):
    """Cosine distance to the nearest of `rows` remembered codes of `width` numbers."""

    codes: Tensor
    spread: Tensor

    def __init__(self, rows: int, width: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("codes", torch.zeros(rows, width))
        self.register_buffer("spread", torch.ones(rows))

    @torch.no_grad()
    def remember(self, codes: Tensor) -> None:
        """Takes `[rows, width]` codes of normal records; forgets those before."""
        self.codes = functional.normalize(codes, dim=1)
        nearest = (
            (self.codes @ self.codes.T).fill_diagonal_(-1.0).topk(max(1, min(self.neighbours, len(codes) - 1))).values
        )
        own = 1.0 - nearest.mean(dim=1)
        # A record that lies in the memory twice has a spread near zero and would make its whole surroundings look far.
        self.spread = own.clamp(min=0.25 * float(own.median()) + 1e-6)

    def nearest(self, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Cosines `[N, k]`, descending, and indices `[N, k]` of the `count` nearest of codes `[N, width]`."""
        similarity = functional.normalize(codes, dim=1) @ self.codes.T  # (N, rows)
        values, index = similarity.topk(min(count, self.codes.shape[0]))
        return values, index

    def distance(self, codes: Tensor) -> Tensor:
        """Mean cosine distance of `[N, width]` to the nearest: `[N]`, in 0…2."""
        return 1.0 - self.nearest(codes, self.neighbours)[0].mean(dim=1)

    def relative_distance(self, cosines: Tensor, index: Tensor) -> Tensor:
        """That distance divided by the neighbours' distance to theirs: `[N]`, about 1 for a normal record.

        Takes what `nearest` gave, as whoever asks wants to know who they are as well.
        """
        cosines, index = cosines[:, : self.neighbours], index[:, : self.neighbours]
        return (1.0 - cosines.mean(dim=1)) / self.spread[index].mean(dim=1)
