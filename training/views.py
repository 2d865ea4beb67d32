"""Two views of the same normal picture, from which the encoder learns what belongs together.

Sources: T. Chen et al., SimCLR, ICML 2020, section 3 (strong views matter); P. Simard, D. Steinkraus, J. Platt, Best
practices for convolutional neural networks, ICDAR 2003, section 2 (elastic deformation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

ROTATION = math.radians(15.0)
SCALE = 0.12
SHEAR = 0.2
SHIFT = 0.1
ELASTIC = 0.08


def _uniform(count: int, limit: float, random: torch.Generator, device: torch.device) -> Tensor:
    return (torch.rand(count, generator=random, device=device) * 2.0 - 1.0) * limit


def _affine(count: int, random: torch.Generator, device: torch.device) -> Tensor:
    """Random rotation, scale, shear and shift: `[count, 2, 3]`, as `affine_grid` takes it."""
    angle = _uniform(count, ROTATION, random, device)
    scale = 1.0 + _uniform(count, SCALE, random, device)
    shear = _uniform(count, SHEAR, random, device)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    across = torch.stack([cos, shear - sin, _uniform(count, 2 * SHIFT, random, device)], dim=1)
    down = torch.stack([sin, cos, _uniform(count, 2 * SHIFT, random, device)], dim=1)
    return torch.stack([across, down], dim=1)


def picture_view(x: Tensor, random: torch.Generator) -> Tensor:
    """Prepared pictures `[B, C, S, S]` bent, shifted, and a third each made thicker or thinner; same shape."""
    count, _, side, _ = x.shape
    grid = functional.affine_grid(_affine(count, random, x.device), list(x.shape), align_corners=False)  # (B, S, S, 2)
    bend = torch.randn(count, 2, 4, 4, generator=random, device=x.device) * ELASTIC
    bend = functional.interpolate(bend, (side, side), mode="bilinear", align_corners=False)
    view = functional.grid_sample(x, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    third = count // 3
    thicker = functional.max_pool2d(view[:third], 3, stride=1, padding=1)
    thinner = -functional.max_pool2d(-view[third : 2 * third], 3, stride=1, padding=1)
    strength = torch.rand(2 * third, 1, 1, 1, generator=random, device=x.device)
    changed = torch.lerp(view[: 2 * third], torch.cat([thicker, thinner]), strength)
    return torch.cat([changed, view[2 * third :]])
