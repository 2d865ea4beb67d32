"""Random regions and strokes in which a picture is spoilt.

Lengths are drawn log-uniformly, from about a pixel to a part of the shorter side: most defects are small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from model.smoothing import local_mean

EVERYWHERE = 0.1  # of the regions are the whole picture
STROKE_STEPS = 160
STROKE_STEP = 0.6  # pixels


def uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """`[count, 1, 1, 1]` in low…high."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=random, device=random.device)


def log_uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """`[count, 1, 1, 1]` in low…high, as often in any octave as in another; both > 0."""
    return uniform(count, math.log(low), math.log(high), random).exp()


def chance(count: int, probability: float, random: torch.Generator) -> Tensor:
    """`[count, 1, 1, 1]` bool."""
    return torch.rand(count, 1, 1, 1, generator=random, device=random.device) < probability


def one_of(choices: tuple[int, ...], random: torch.Generator) -> int:
    """One number for a whole batch."""
    return choices[int(torch.randint(len(choices), (), generator=random, device=random.device))]


def clouds(x: Tensor, cells: int, channels: int, random: torch.Generator) -> Tensor:
    """Smooth noise of about unit variance for each picture, `cells` of it a side: `[B, channels, h, w]`."""
    height, width = (max(2, min(side, cells)) for side in x.shape[2:])
    noise = torch.randn(len(x), channels, height, width, generator=random, device=x.device)
    return functional.interpolate(noise, x.shape[2:], mode="bicubic")


def regions(x: Tensor, smallest: float, largest: float, random: torch.Generator) -> Tensor:
    """One region in each of `[B, C, h, w]`: `[B, 1, h, w]` in 0…1, between an ellipse and a box, ragged, soft-edged.

    `smallest` is a radius in pixels, `largest` a share of the shorter side.
    """
    count, _, height, width = x.shape
    size = log_uniform(count, smallest, max(largest * min(height, width), 2 * smallest), random)
    stretch = (0.5 * torch.randn(count, 1, 1, 1, generator=random, device=x.device)).exp()
    angle = uniform(count, 0.0, math.pi, random)
    down, across = _from_centre(x, random)
    along = (down * angle.cos() + across * angle.sin()) / (size * stretch)
    beside = (across * angle.cos() - down * angle.sin()) / (size / stretch).clamp(min=0.7)
    power = torch.where(chance(count, 0.5, random), 2.0, 6.0)
    radius = (along.abs() ** power + beside.abs() ** power) ** (1.0 / power)
    radius = radius + uniform(count, 0.0, 0.5, random) * clouds(x, 12, 1, random)
    edge = (log_uniform(count, 0.5, 3.0, random) / size.clamp(min=1.0)).clamp(max=0.5)
    region = torch.sigmoid(3.0 * (1.0 - radius) / edge)
    return torch.where(chance(count, EVERYWHERE, random), 1.0, region)


def strokes(x: Tensor, random: torch.Generator) -> Tensor:
    """One line in each of `[B, C, h, w]`, wandering in direction: `[B, 1, h, w]` in 0…1."""
    count, _, height, width = x.shape
    lengths = log_uniform(count, 4.0, 1.2 * max(height, width), random).view(count, 1)
    bends = torch.randn(count, STROKE_STEPS, generator=random, device=x.device).cumsum(dim=1)
    angle = uniform(count, 0.0, 2.0 * math.pi, random).view(count, 1)
    angle = angle + bends * log_uniform(count, 0.01, 0.2, random).view(count, 1)
    row, column = _centres(x, random)
    down = row.view(count, 1) + (angle.sin() * STROKE_STEP).cumsum(dim=1)
    across = column.view(count, 1) + (angle.cos() * STROKE_STEP).cumsum(dim=1)
    drawn = torch.arange(STROKE_STEPS, device=x.device) * STROKE_STEP < lengths
    drawn &= (down >= 0) & (down <= height - 1.001) & (across >= 0) & (across <= width - 1.001)
    line = _splat(down.clamp(0, height - 1.001), across.clamp(0, width - 1.001), drawn.float(), height, width)
    thickness = one_of((1, 3, 3, 5, 7), random)
    if thickness > 1:
        soft = local_mean(line, thickness) * (0.8 * thickness)
        hard = functional.max_pool2d(line, thickness, stride=1, padding=thickness // 2)
        line = torch.where(chance(count, 0.5, random), soft, hard)
    return line.clamp(0.0, 1.0)


def _splat(down: Tensor, across: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    """Points `[B, n]` to `[B, 1, h, w]`, each shared by the four pixels around it."""
    top, left = down.floor(), across.floor()
    below, right = down - top, across - left
    total = torch.zeros(len(down), height * width, device=down.device)
    for row, vertical in ((top, 1.0 - below), (top + 1.0, below)):
        for column, horizontal in ((left, 1.0 - right), (left + 1.0, right)):
            total.scatter_add_(1, (row * width + column).long(), vertical * horizontal * weight)
    return (0.8 * total).clamp(max=1.0).view(-1, 1, height, width)


def _centres(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A place in each picture, half the time where something is to be seen: row and column, `[B, 1, 1, 1]` each."""
    count, _, height, width = x.shape
    activity = local_mean((x - local_mean(x, 5)).abs().mean(dim=1, keepdim=True), 5).flatten(1).clamp(min=0.0) + 1e-6
    weights = 0.5 * activity / activity.sum(dim=1, keepdim=True) + 0.5 / (height * width)
    place = torch.multinomial(weights, 1, generator=random).view(count, 1, 1, 1)
    return (place // width).float(), (place % width).float()


def _from_centre(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each pixel's way from a random place: down `[B, 1, h, 1]` and across `[B, 1, 1, w]`."""
    row, column = _centres(x, random)
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device).view(1, 1, height, 1) - row
    return down, torch.arange(width, device=x.device).view(1, 1, 1, width) - column
