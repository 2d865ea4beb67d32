"""How far is a window from the normal ones, by how they vary together?

Sources:
- O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis
  88, 2004: shrinkage.
- M. Tipping, C. Bishop, Probabilistic principal component analysis, JRSS B 61, 1999, section 3: the axes that are kept,
  the one variance that the others share, and what a missing value most likely was.
- A. Kessy, A. Lewin, K. Strimmer, Optimal whitening and decorrelation, The American Statistician 72, 2018, section 3:
  of all whitened coordinates, those by the symmetric root stay nearest to the original ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHRINKAGE = 0.2  # enough for few rows with many features; how much exactly matters little
MOST_ROWS = 1024  # more hardly move the estimate, and its cost grows with their square


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
        """Takes normal records `[N, width]`, none missing; of more than 1,024, so many spread over them."""
        if len(rows) > MOST_ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, MOST_ROWS, device=rows.device).round().long()]
        width, components = self.axes.shape
        self.mean = rows.mean(dim=0)
        centred = (rows - self.mean).double()
        count = max(1, len(rows) - 1)
        total = float(centred.square().sum()) / count
        isotropic = max(total / width, 1e-6)
        kept, axes = _strongest(centred, components)
        left = max(total - float(kept.sum()) / count, 0.0) / max(1, width - int((kept > 0).sum()))
        self.axes = axes.to(rows.dtype)
        self.variances = ((1.0 - SHRINKAGE) * kept / count + SHRINKAGE * isotropic).to(rows.dtype)
        self.rest = torch.tensor((1.0 - SHRINKAGE) * left + SHRINKAGE * isotropic, dtype=rows.dtype, device=rows.device)

    def coordinates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `[N, width]` along the axes, `[N, components]`, and the squared length of what is left, `[N]`."""
        centred = rows - self.mean
        along = centred @ self.axes
        return along, (centred.square().sum(1) - along.square().sum(1)).clamp(min=0.0)

    def distance(self, along: Tensor, beside: Tensor) -> Tensor:
        """`[N]`, >= 0, about 1 for a normal record, from its coordinates."""
        return ((along.square() / self.variances).sum(1) + beside / self.rest) / self.axes.shape[0]

    def shares(self, rows: Tensor) -> Tensor:
        """Rows `[N, width]` to what each number adds to their distance: `[N, width]`, >= 0; the mean is the distance.

        They are the squares of the whitened coordinates that lie nearest to the original ones.
        """
        centred = rows - self.mean
        along = centred @ self.axes
        inward = along * (self.variances.rsqrt() - self.rest.rsqrt())
        return (inward @ self.axes.T + centred * self.rest.rsqrt()).square()

    def fill(self, rows: Tensor) -> Tensor:
        """Rows `[N, width]` with each NaN replaced by what it most likely was, given the rest of its row.

        The distance of the filled row is then that of its seen part alone (times its share of the width).
        """
        seen = ~torch.isnan(rows)
        broken = torch.nonzero(~seen.all(dim=1)).squeeze(1)
        if len(broken) == 0:
            return rows
        weight = seen[broken].to(rows.dtype)  # (M, width)
        centred = torch.where(seen[broken], rows[broken] - self.mean, 0.0)
        # An axis no wider than the rest tells nothing of what is missing: its prior is a point.
        noise = self.rest / (self.variances - self.rest).clamp(min=1e-6 * float(self.rest))
        inner = torch.einsum("mw,wi,wj->mij", weight, self.axes, self.axes) + torch.diag(noise)  # (M, c, c)
        factors = torch.linalg.solve(inner, (centred @ self.axes).unsqueeze(2)).squeeze(2)  # (M, c)
        filled = rows.clone()
        filled[broken] = torch.where(seen[broken], rows[broken], self.mean + factors @ self.axes.T)
        return filled


def _strongest(centred: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Squared singular values `[components]` and axes `[width, components]` of rows; zeros where there are fewer.

    By the smaller of the two products of the rows with themselves, as a window has many more numbers than are needed.
    """
    rows, width = centred.shape
    tall = rows >= width
    product = centred.T @ centred if tall else centred @ centred.T
    squares, vectors = torch.linalg.eigh(product)
    count = min(components, rows, width)
    squares, vectors = squares.flip(0)[:count].clamp(min=0.0), vectors.flip(1)[:, :count]
    real = squares > float(squares[0]) * 1e-9
    squares = torch.where(real, squares, 0.0)
    axes = vectors if tall else centred.T @ vectors / squares.sqrt().clamp(min=1e-12)
    kept = torch.zeros(components, dtype=centred.dtype, device=centred.device)
    kept[:count] = squares
    result = torch.zeros(width, components, dtype=centred.dtype, device=centred.device)
    result[:, :count] = axes * real
    return kept, result
