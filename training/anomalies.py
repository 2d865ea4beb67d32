"""Pseudo-anomalies: normal records with something wrong, which the generator learns to undo.

A generator that is only asked to copy learns to copy anomalies too. Asked for the clean record behind a spoilt one, it
pulls what it sees towards the normal ones (P. Vincent et al., Extracting and composing robust features with denoising
autoencoders, ICML 2008). The kinds of damage: C.-L. Li et al., CutPaste, CVPR 2021, and plain noise, ink and erasure.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def _boxes(count: int, side: int, random: torch.Generator, device: torch.device) -> Tensor:
    """One random rectangle per picture, an eighth to a half of a side: `[count, 1, side, side]` bool."""
    size = (0.125 + 0.375 * torch.rand(count, 2, 1, generator=random, device=device)) * side
    start = torch.rand(count, 2, 1, generator=random, device=device) * (side - size)
    steps = torch.arange(side, device=device).view(1, 1, side)
    inside = (steps >= start) & (steps < start + size)  # (count, 2, side)
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).unsqueeze(1)


def spoil_pictures(x: Tensor, random: torch.Generator) -> Tensor:
    """Prepared pictures `[B, C, S, S]` with noise, a foreign patch, or a region erased or inked; same shape."""
    count, _, side, _ = x.shape
    box = _boxes(count, side, random, x.device)
    kind = torch.randint(0, 3, (count, 1, 1, 1), generator=random, device=x.device)
    coarse = torch.randn(count, x.shape[1], side // 2, side // 2, generator=random, device=x.device)
    noisy = x + 0.5 * functional.interpolate(coarse, (side, side), mode="nearest")
    other = x.roll(1, dims=0).roll((side // 3, side // 4), dims=(2, 3))
    level = torch.rand(count, 1, 1, 1, generator=random, device=x.device) * 2.0 - 1.0
    spoilt = torch.where(kind == 0, noisy, torch.where(box, torch.where(kind == 1, other, level), x))
    return spoilt.clamp(-1.5, 1.5)


def spoil_windows(x: Tensor, random: torch.Generator) -> Tensor:
    """Scaled windows `[B, T, F]` in which some features jump, freeze, drift or shake for a while; same shape."""
    count, length, features = x.shape
    start = torch.rand(count, 1, 1, generator=random, device=x.device) * length
    span = (0.1 + 0.5 * torch.rand(count, 1, 1, generator=random, device=x.device)) * length
    steps = torch.arange(length, device=x.device).view(1, length, 1)
    chosen = torch.rand(count, 1, features, generator=random, device=x.device)
    hit = (steps >= start) & (steps < start + span) & (chosen <= chosen.amin(dim=2, keepdim=True).clamp(min=0.4))
    size = 1.5 * torch.randn(count, 1, features, generator=random, device=x.device)
    kind = torch.randint(0, 4, (count, 1, 1), generator=random, device=x.device)
    jump = x + size
    freeze = x[:, :1].expand_as(x)
    drift = x + size * (steps - start).clamp(min=0) / span
    shake = x + size * torch.randn(x.shape, generator=random, device=x.device)
    damaged = torch.where(kind == 0, jump, torch.where(kind == 1, freeze, torch.where(kind == 2, drift, shake)))
    return torch.where(hit, damaged, x)
