"""How well does a window's past foretell its next step?

Sources:
- H. Lütkepohl, New introduction to multiple time series analysis, 2005, section 3.2: vector autoregression and its
  multivariate least squares.
- A. Hoerl, R. Kennard, Ridge regression, Technometrics 12, 1970: the penalty that short histories need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.missing import carry_forward, mean_of_seen

MOST_STEPS_BACK = 4
RIDGE = 1.0  # in observations: as if one more, of zeros, had been seen in each direction
MOST_EXAMPLES = 50_000
NUMBERS_PER_WEIGHT = 4  # observations that a weight must be learned from
QUIET = 0.1  # of the variance of normal errors: how much smaller than usual an error may be and still tell something


class Forecast(nn.Module):
    """Linear forecast of each step from the `back` steps before it, all features from all."""

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        self.back = min(MOST_STEPS_BACK, length // 2)
        self.register_buffer("weight", torch.zeros(features, features, self.back))  # as conv1d takes it
        self.register_buffer("bias", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Takes prepared normal windows `[N, T, F]`, which may overlap."""
        count, _, features = x.shape
        back = max(1, min(self.back, count // (NUMBERS_PER_WEIGHT * features)))
        past, next_ = _examples(carry_forward(x), back)  # (n, back · F), (n, F)
        past, next_ = past.double(), next_.double()
        mean_past, mean_next = past.mean(dim=0), next_.mean(dim=0)
        centred = past - mean_past
        product = centred.T @ centred / len(past)
        product.diagonal().add_(RIDGE / count)
        solved = torch.linalg.solve(product, centred.T @ (next_ - mean_next) / len(past))  # (back · F, F)
        error = next_ - mean_next - centred @ solved
        self.weight = torch.zeros_like(self.weight)
        self.weight[:, :, self.back - back :] = solved.view(back, features, features).permute(2, 1, 0).to(x.dtype)
        self.bias = (mean_next - mean_past @ solved).to(x.dtype)
        self.scale = error.square().mean(dim=0).sqrt().add(1e-2).to(x.dtype)

    def errors(self, x: Tensor) -> Tensor:
        """Prepared windows `[B, T, F]` to squared errors of the steps that have a past: `[B, T − back, F]`.

        In units of normal ones. The error of a missing value is NaN.
        """
        past = carry_forward(x)[:, :-1].transpose(1, 2)
        foretold = functional.conv1d(past, self.weight, self.bias).transpose(1, 2)  # (B, T − back, F)
        return ((x[:, self.back :] - foretold) / self.scale).square()

    def surprise(self, errors: Tensor, steps: int) -> Tensor:
        """Of the last `steps`: the mean over time of the logarithm of the mean squared error: `[B]`.

        The logarithm first, so that one broken observation is not all that a long stretch shows.
        """
        last = errors[:, -steps:]
        seen = ~torch.isnan(last)
        by_step = torch.log(mean_of_seen(last.nan_to_num(0.0), seen, 2) + QUIET)  # (B, steps)
        return mean_of_seen(by_step, seen.any(dim=2), 1)


def _examples(x: Tensor, back: int) -> tuple[Tensor, Tensor]:
    """Stretches of `back` steps, flat, and the step after each; some, evenly chosen, where there are very many.

    Of a window that is the one before it moved on by a step, only the newest is taken: else the middle of a series
    would count many times as much as its ends, and what comes next is most like its newest end.
    """
    length = x.shape[1]
    fresh = torch.ones(len(x), length - back, dtype=torch.bool, device=x.device)
    fresh[1:, :-1] = ~(x[1:, :-1] == x[:-1, 1:]).flatten(1).all(dim=1, keepdim=True)
    places = fresh.nonzero()  # (n, 2)
    if len(places) > MOST_EXAMPLES:
        places = places[torch.linspace(0, len(places) - 1, MOST_EXAMPLES, device=x.device).round().long()]
    steps = x.unfold(1, back + 1, 1)[places[:, 0], places[:, 1]]  # (n, F, back + 1)
    return steps[:, :, :-1].transpose(1, 2).flatten(1), steps[:, :, -1]
