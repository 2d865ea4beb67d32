"""Pseudo-anomalies: normal pictures with something wrong, made from nothing but themselves.

The discriminator learns to find them, the generator to undo them: one that is only asked to copy learns to copy
anomalies too (P. Vincent et al., Extracting and composing robust features with denoising autoencoders, ICML 2008).
Sources of single kinds: C.-L. Li et al., CutPaste, CVPR 2021; H. M. Schluter et al., Natural synthetic anomalies,
ECCV 2022 (the surroundings' brightness kept). No kind is among those that detectors are tested with.

Each takes prepared pictures `[B, C, h, w]` and gives the spoilt ones and where they are: `[B, 1, h, w]` in 0…1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from model.smoothing import local_mean
from training.regions import chance, clouds, log_uniform, one_of, regions, strokes, uniform

PseudoAnomaly = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]

KINDS_AT_ONCE = 4  # in a batch; each costs a few dozen operations, however few pictures it is given
LIMIT = 1.5


def _blend(x: Tensor, other: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    return x + where * (other - x), where


def _foreign(x: Tensor, random: torch.Generator) -> Tensor:
    """Another place, often of another picture, some turned or mirrored; same shape."""
    height, width = x.shape[2:]
    other = x.roll(1, dims=0) if one_of((0, 1, 1), random) else x
    shift = [one_of(tuple(range(side // 4, max(side // 4 + 1, 3 * side // 4))), random) for side in (height, width)]
    other = other.roll(shift, dims=(2, 3))
    turn = one_of((0, 1, 2, 3), random)
    if turn == 3:
        return other.transpose(2, 3) if height == width else other
    return other.flip(turn + 1) if turn else other


def _tinted(x: Tensor, where: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Darker or brighter there; in half of the colour pictures each channel by itself."""
    count, channels = x.shape[:2]
    sign = torch.where(chance(count, 0.6, random), -1.0, 1.0)
    colour = torch.rand(count, channels, 1, 1, generator=random, device=x.device) * 2.0 - 1.0
    colour = torch.where(chance(count, 0.5 if channels > 1 else 1.0, random), 1.0, colour)
    return x + where * sign * colour * log_uniform(count, 0.06, 1.0, random), where


def cut_paste(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A piece from elsewhere."""
    return _blend(x, _foreign(x, random), regions(x, 1.5, 0.3, random))


def graft(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The fine structure of a piece from elsewhere, in the brightness of its new surroundings, partly transparent."""
    other = _foreign(x, random)
    other = other - local_mean(other, 9) + local_mean(x, 9)
    where = regions(x, 1.5, 0.3, random)
    return x + where * uniform(len(x), 0.3, 1.0, random) * (other - x), where


def pixelate(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blocks of 2 to 4 pixels."""
    height, width = x.shape[2:]
    size = one_of((2, 3, 4), random)
    padded = functional.pad(x, (0, -width % size, 0, -height % size), mode="replicate")
    blocks = functional.interpolate(functional.avg_pool2d(padded, size), scale_factor=size)[:, :, :height, :width]
    return _blend(x, blocks, regions(x, 2.0, 0.4, random))


def block_flow(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blocks of 3 to 8 pixels, each moved by itself."""
    count, _, height, width = x.shape
    size = one_of((3, 4, 5, 6, 7, 8), random)
    cells = max(2, height // size), max(2, width // size)
    moves = torch.randn(count, 2, *cells, generator=random, device=x.device) * log_uniform(count, 0.7, 3.0, random)
    moves = functional.interpolate(moves, (height, width), mode="nearest").permute(0, 2, 3, 1)  # (B, h, w, 2)
    still = torch.eye(2, 3, device=x.device).expand(count, 2, 3)
    grid = functional.affine_grid(still, list(x.shape), align_corners=False)
    grid = grid + moves * torch.tensor([2.0 / width, 2.0 / height], device=x.device)
    moved = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return _blend(x, moved, regions(x, 2.0, 0.4, random))


def uneven_grain(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Grain of 1 to 3 pixels, in drifts."""
    grain = clouds(x, x.shape[2] // one_of((1, 2, 3), random), x.shape[1], random)
    where = regions(x, 2.0, 0.5, random) * torch.sigmoid(2.0 * clouds(x, 6, 1, random) + 1.0)
    return x + where * grain * log_uniform(len(x), 0.03, 0.6, random), where


def scratch(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A wandering line, darker or brighter."""
    return _tinted(x, strokes(x, random), random)


def stain(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A spot, darker or brighter."""
    return _tinted(x, regions(x, 0.8, 0.2, random), random)


def harshen(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fine structure made stronger, or turned into its negative."""
    factor = log_uniform(len(x), 1.6, 4.0, random)
    factor = torch.where(chance(len(x), 0.5, random), factor, -0.5 * factor)
    mean = local_mean(x, 9)
    return _blend(x, mean + (x - mean) * factor, regions(x, 2.0, 0.4, random))


def smear(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Wiped along one direction."""
    reach, angle = one_of((2, 3, 4, 5), random), float(uniform(1, 0.0, math.pi, random))
    steps = range(-reach, reach + 1)
    moved = [x.roll((round(step * math.sin(angle)), round(step * math.cos(angle))), dims=(2, 3)) for step in steps]
    return _blend(x, torch.stack(moved).mean(dim=0), regions(x, 2.0, 0.4, random))


def swell(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is bright there grows, or what is dark."""
    size = one_of((3, 3, 5), random)
    bright = functional.max_pool2d(x, size, stride=1, padding=size // 2)
    dark = -functional.max_pool2d(-x, size, stride=1, padding=size // 2)
    return _blend(x, torch.where(chance(len(x), 0.5, random), bright, dark), regions(x, 1.5, 0.4, random))


PSEUDO_ANOMALIES: dict[str, PseudoAnomaly] = {
    kind.__name__: kind
    for kind in (
        *(cut_paste, graft, pixelate, block_flow, uneven_grain, scratch),
        *(stain, harshen, smear, swell),
    )
}


def spoil(x: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """One pseudo-anomaly in each of `[B, C, h, w]`: the spoilt pictures, and the largest change of a channel.

    The latter is `[B, 1, h, w]`, >= 0, and 0 where a picture is as it was: a region can lie where it changes nothing.
    """
    kinds = list(PSEUDO_ANOMALIES.values())
    chosen = torch.randperm(len(kinds), generator=random, device=random.device)[:KINDS_AT_ONCE].tolist()
    spoilt = torch.empty_like(x)
    for turn, kind in enumerate(chosen):
        part = slice(turn, None, KINDS_AT_ONCE)
        if len(x[part]):
            spoilt[part] = kinds[kind](x[part], random)[0].clamp(-LIMIT, LIMIT)
    return spoilt, (spoilt - x).abs().amax(dim=1, keepdim=True)


def spoil_pictures(x: Tensor, random: torch.Generator) -> Tensor:
    """Prepared pictures `[B, C, h, w]` with two pseudo-anomalies each, for the generator to undo; same shape."""
    return spoil(spoil(x, random)[0], random)[0]
