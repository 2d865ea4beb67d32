"""Evidence of labelled anomalies: is a record more like them than like the normal ones?

Sources:
- A. Blum, T. Mitchell, Combining labeled and unlabeled data with co-training, COLT 1998: two views of a record, a
  classifier for each. How they teach each other is training/co_training.py.
- D. Cox, The regression analysis of binary sequences, JRSS B 20, 1958: the logistic model; fitted by Newton steps.
- G. King, L. Zeng, Logistic regression in rare events data, Political Analysis 9, 2001, section 4.2: both classes weigh
  the same however few the one is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.01  # on standardised numbers
NEWTON_STEPS = 12


class Verdict(nn.Module):
    """Log-odds from one view, linear in its standardised numbers."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("bias", torch.zeros(()))

    @torch.no_grad()
    def fit(self, rows: Tensor, anomalous: Tensor) -> None:
        """Takes rows `[N, width]`, and `[N]` bool; some of both kinds."""
        self.mean, self.scale = rows.mean(dim=0), rows.std(dim=0) + 1e-6
        inputs = torch.cat([(rows - self.mean) / self.scale, torch.ones_like(rows[:, :1])], dim=1).double()
        target = anomalous.double()
        share = torch.where(anomalous, 0.5 / target.sum(), 0.5 / (1.0 - target).sum())
        penalty = torch.full_like(inputs[0], RIDGE)
        penalty[-1] = 1e-9
        found = torch.zeros_like(penalty)
        for _ in range(NEWTON_STEPS):
            odds = torch.sigmoid(inputs @ found)
            gradient = inputs.T @ (share * (odds - target)) + penalty * found
            curvature = (inputs.T * (share * odds * (1.0 - odds))) @ inputs + torch.diag(penalty)
            found = found - torch.linalg.solve(curvature, gradient)
        self.weight, self.bias = found[:-1].to(rows.dtype), found[-1].to(rows.dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows `[N, width]` to log-odds `[N]`, above 0 where they are like the anomalies."""
        return (rows - self.mean) / self.scale @ self.weight + self.bias


class LabelledEvidence(nn.Module):
    """The mean of what two views say."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.first = Verdict(first)
        self.second = Verdict(second)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Both views `[N, …]` of the same records to log-odds `[N]`; larger is stranger."""
        odds: Tensor = self.first(first) + self.second(second)
        return 0.5 * odds
