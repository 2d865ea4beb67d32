"""What a detector asks of the normal records it remembers: how far is the nearest, and is that far around there?

Sources:
- S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000:
  distance to the k nearest neighbours.
- M. Breunig et al., LOF: identifying density-based local outliers, SIGMOD 2000: that distance relative to the
  neighbours' own, here with means in place of reachability.
- M. Tipping, C. Bishop, Probabilistic principal component analysis, JRSS B 61, 1999, section 3: the Mahalanobis
  distance under a covariance of some components and isotropic noise.
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
        nearest = (self.codes @ self.codes.T).fill_diagonal_(-1.0).topk(self._count(others=True)).values
        own = 1.0 - nearest.mean(dim=1)
        # A record that lies in the memory twice has a spread near zero and would make its whole surroundings look far.
        self.spread = own.clamp(min=0.25 * float(own.median()) + 1e-6)

    def distance(self, codes: Tensor) -> Tensor:
        """Mean cosine distance of `[N, width]` to the nearest: `[N]`, in 0…2."""
        return 1.0 - self._nearest(codes)[0].mean(dim=1)

    def relative_distance(self, codes: Tensor) -> Tensor:
        """That distance divided by the neighbours' distance to theirs: `[N]`, about 1 for a normal record."""
        nearest, index = self._nearest(codes)
        return (1.0 - nearest.mean(dim=1)) / self.spread[index].mean(dim=1)

    def _nearest(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        similarity = functional.normalize(codes, dim=1) @ self.codes.T  # (N, rows)
        values, index = similarity.topk(self._count())
        return values, index

    def _count(self, *, others: bool = False) -> int:
        return max(1, min(self.neighbours, self.codes.shape[0] - int(others)))


class Mahalanobis(nn.Module):
    """Squared Mahalanobis distance, per dimension, under probabilistic principal components."""

    mean: Tensor
    axes: Tensor
    precision: Tensor
    noise: Tensor

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.zeros(width, components))
        self.register_buffer("precision", torch.ones(components))
        self.register_buffer("noise", torch.ones(()))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Takes normal records `[N, width]`. The noise is what the components leave, spread evenly."""
        width, components = self.axes.shape
        self.mean = rows.mean(dim=0)
        centred = (rows - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(rows) - 1))
        kept = values[-components:]
        rest = float(values[: width - components].clamp(min=0).sum()) / max(1, width - components)
        noise = max(rest, 1e-4 * float(values.clamp(min=0).sum()) / width, 1e-6)
        self.axes = vectors[:, -components:].to(rows.dtype).contiguous()
        self.precision = (1.0 / kept.clamp(min=noise)).to(rows.dtype)
        self.noise = torch.tensor(noise, dtype=rows.dtype, device=rows.device)

    def components(self, rows: Tensor) -> Tensor:
        """Rows `[N, width]` along the components, in units of their deviation: `[N, components]`."""
        return (rows - self.mean) @ self.axes * self.precision.sqrt()

    def distance(self, rows: Tensor) -> Tensor:
        """`[N]`, >= 0, about 1 for a normal record of `[N, width]`."""
        centred = rows - self.mean
        along = centred @ self.axes  # (N, components)
        beside = (centred.square().sum(1) - along.square().sum(1)).clamp(min=0) / self.noise
        return ((along.square() * self.precision).sum(1) + beside) / rows.shape[1]
