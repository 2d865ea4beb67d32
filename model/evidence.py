"""What a detector asks of the normal records it remembers: how far is the nearest, and is that far around there?

Sources:
- S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000:
  distance to the k nearest neighbours.
- M. Breunig et al., LOF: identifying density-based local outliers, SIGMOD 2000: that distance relative to the
  neighbours' own, here with means in place of reachability.
- O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis
  88, 2004: shrinkage.
- M. Tipping, C. Bishop, Probabilistic principal component analysis, JRSS B 61, 1999, section 3: the axes that are kept,
  and the one variance that the others share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SHRINKAGE = 0.2  # enough for few rows with many features; how much exactly matters little


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


class ShrunkGaussian(nn.Module):
    """Squared Mahalanobis distance, per dimension, under a covariance shrunk towards the isotropic one.

    Of the covariance the strongest `components` axes are kept and the others share one variance.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.zeros(width, components))
        self.register_buffer("variances", torch.ones(components))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Takes normal records `[N, width]`."""
        width, components = self.axes.shape
        self.mean = rows.mean(dim=0)
        centred = (rows - self.mean).double()
        total = float(centred.square().sum()) / max(1, len(rows) - 1)
        isotropic = max(total / width, 1e-6)
        decomposed = torch.linalg.svd(centred, full_matrices=False)
        count = min(components, len(decomposed.S))
        kept = torch.zeros(components, dtype=torch.float64, device=rows.device)
        kept[:count] = decomposed.S[:count].square() / max(1, len(rows) - 1)
        axes = torch.zeros(width, components, dtype=torch.float64, device=rows.device)
        axes[:, :count] = decomposed.Vh[:count].T
        left = max(total - float(kept.sum()), 0.0) / max(1, width - count)
        self.axes = axes.to(rows.dtype)
        self.variances = ((1.0 - SHRINKAGE) * kept + SHRINKAGE * isotropic).to(rows.dtype)
        self.rest = torch.tensor((1.0 - SHRINKAGE) * left + SHRINKAGE * isotropic, dtype=rows.dtype, device=rows.device)

    def coordinates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `[N, width]` along the axes, `[N, components]`, and the squared length of what is left, `[N]`."""
        centred = rows - self.mean
        along = centred @ self.axes
        return along, (centred.square().sum(1) - along.square().sum(1)).clamp(min=0.0)

    def distance(self, along: Tensor, beside: Tensor) -> Tensor:
        """`[N]`, >= 0, about 1 for a normal record, from its coordinates."""
        return ((along.square() / self.variances).sum(1) + beside / self.rest) / self.axes.shape[0]


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
