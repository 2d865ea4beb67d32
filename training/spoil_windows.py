"""Pseudo-anomalies of sequences: normal windows with something wrong, which the generator learns to undo.

A generator that is only asked to copy learns to copy anomalies too. Asked for the clean window behind a spoilt one, it
pulls what it sees towards the normal ones (P. Vincent et al., Extracting and composing robust features with denoising
autoencoders, ICML 2008). The kinds of damage are those of sensors: A. Sharma, L. Golubchik, R. Govindan, Sensor faults:
detection methods and prevalence in real-world datasets, ACM TOSN 6, 2010, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = 5


def spoil_windows(x: Tensor, random: torch.Generator) -> Tensor:
    """Scaled windows `[B, T, F]`; some features jump, freeze, drift, shake or go missing (NaN) for a while."""
    count, length, features = x.shape
    start = torch.rand(count, 1, 1, generator=random, device=x.device) * length
    span = (0.1 + 0.5 * torch.rand(count, 1, 1, generator=random, device=x.device)) * length
    steps = torch.arange(length, device=x.device).view(1, length, 1)
    chosen = torch.rand(count, 1, features, generator=random, device=x.device)
    hit = (steps >= start) & (steps < start + span) & (chosen <= chosen.amin(dim=2, keepdim=True).clamp(min=0.4))
    size = 1.5 * torch.randn(count, 1, features, generator=random, device=x.device)
    shake = x + size * torch.randn(x.shape, generator=random, device=x.device)
    damaged = (
        x + size,  # a jump
        x[:, :1].expand_as(x),  # frozen
        x + size * (steps - start).clamp(min=0) / span,  # a drift
        shake,
        torch.full_like(x, torch.nan),
    )
    kind = torch.randint(0, KINDS, (count, 1, 1), generator=random, device=x.device)
    spoilt = x
    for number, values in enumerate(damaged):
        spoilt = torch.where(hit & (kind == number), values, spoilt)
    return spoilt
