"""Several modes of normal: how far is a code from the nearest cluster of normal ones, in that cluster's own shape?

Sources:
- S. Lloyd, Least squares quantization in PCM, IEEE Trans. Information Theory 28, 1982; begun as in D. Arthur, S.
  Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007, section 2.2.
- O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis
  88, 2004, section 3.2: the covariance, shrunk towards a multiple of the identity by as much as the sample asks for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDS = 25
FEWEST = 10  # members of a cluster: with fewer, its covariance is that of all


def k_means(rows: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Of rows `[N, D]`, which of at most `count` clusters each belongs to: `[N]` int64. `random` is on the CPU."""
    centres = _seeds(rows, min(count, len(rows)), random)
    members = torch.cdist(rows, centres).argmin(dim=1)
    for _ in range(ROUNDS):
        one_hot = torch.nn.functional.one_hot(members, len(centres)).to(rows.dtype)  # (N, k)
        sizes = one_hot.sum(dim=0).unsqueeze(1)
        # An empty cluster stays where it is, and may win members back.
        centres = torch.where(sizes > 0, one_hot.T @ rows / sizes.clamp(min=1.0), centres)
        moved = torch.cdist(rows, centres).argmin(dim=1)
        if torch.equal(moved, members):
            break
        members = moved
    return members


def _seeds(rows: Tensor, count: int, random: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(rows), (1,), generator=random))]
    while len(chosen) < count:
        squares = torch.cdist(rows, rows[chosen]).amin(dim=1).square()
        if float(squares.sum()) == 0.0:
            break
        chosen.append(int(torch.multinomial(squares.cpu(), 1, generator=random)))
    return rows[chosen]


def shrunk_covariance(rows: Tensor) -> Tensor:
    """Of rows `[N, D]`, N >= 2: `[D, D]`, by the formula of Ledoit and Wolf."""
    count, width = rows.shape
    centred = rows - rows.mean(dim=0)
    sample = centred.T @ centred / count
    scale = sample.diagonal().mean()
    spread = (sample - scale * torch.eye(width, dtype=rows.dtype, device=rows.device)).square().sum()
    error = (centred.square().sum(dim=1).square().sum() / count - sample.square().sum()) / count
    share = (error / spread.clamp(min=1e-12)).clamp(0.0, 1.0)
    return (1.0 - share) * sample + share * scale * torch.eye(width, dtype=rows.dtype, device=rows.device)


class Clusters(nn.Module):
    """Mahalanobis distance to the nearest of `count` clusters of codes of `width` numbers."""

    centres: Tensor
    whiten: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(count, width))
        self.register_buffer("whiten", torch.eye(width).repeat(count, 1, 1))

    @torch.no_grad()
    def remember(self, codes: Tensor) -> None:
        """Takes codes `[N, width]` of normal records, N >= 2; forgets those before. The same codes give the same."""
        rows = codes.double()
        members = k_means(rows, len(self.centres), torch.Generator().manual_seed(0))
        everything = shrunk_covariance(rows - _means(rows, members)[members])
        for number in range(len(self.centres)):
            # Clusters that were not needed are copies of the first, and change no minimum.
            own = rows[members == (number if (members == number).any() else int(members[0]))]
            covariance = shrunk_covariance(own) if len(own) >= FEWEST else everything
            floor = 1e-6 * float(covariance.diagonal().mean()) + 1e-12
            covariance = covariance + floor * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
            factor = torch.linalg.cholesky(covariance)
            identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
            self.whiten[number] = torch.linalg.solve_triangular(factor, identity, upper=False).to(codes.dtype)
            self.centres[number] = own.mean(dim=0).to(codes.dtype)

    def distance(self, codes: Tensor) -> Tensor:
        """Codes `[N, width]` to squared distances per number, `[N]`, >= 0, about 1 for a normal record."""
        apart = codes.unsqueeze(1) - self.centres  # (N, k, width)
        white = torch.einsum("nkw,kvw->nkv", apart, self.whiten)  # (N, k, width)
        return white.square().mean(dim=2).amin(dim=1)


def _means(rows: Tensor, members: Tensor) -> Tensor:
    one_hot = torch.nn.functional.one_hot(members).to(rows.dtype)  # (N, k)
    return one_hot.T @ rows / one_hot.sum(dim=0).unsqueeze(1).clamp(min=1.0)  # (k, D)
