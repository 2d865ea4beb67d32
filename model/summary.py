"""A few cheap figures of a record, in which a change of the source shows: of light, of sharpness, of level, of gaps.

They are for noticing drift, not for telling anomalies: each is a number that a person can read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.config import Kind

Floats = NDArray[np.float32]

MOST_FEATURES = 4  # of windows; with more, a figure is about all features together
MOST_PIXELS = 2048  # of a picture that are looked at
SATURATED = (0, 255)
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class Scale:
    """Where each feature of windows lies and how far it varies, `[F]`, so that many can be seen together."""

    center: Floats
    spread: Floats

    @classmethod
    def fit(cls, windows: Floats) -> Scale:
        """Of windows `[n, T, F]`, NaN where a value is missing; a feature that is never there is at 0 ± 1."""
        seen = ~np.isnan(windows)
        count = np.maximum(seen.sum((0, 1)), 1)
        center = np.where(seen, windows, 0.0).sum((0, 1), dtype=np.float64) / count
        square = np.where(seen, np.square(windows - center), 0.0).sum((0, 1), dtype=np.float64) / count
        spread = np.sqrt(square)
        spread = np.where(spread > _LEAST_SPREAD * np.maximum(np.abs(center), 1.0), spread, 1.0)
        return cls(center.astype(np.float32), spread.astype(np.float32))


def summary_names(kind: Kind, shape: Sequence[int], features: Sequence[str] | None = None) -> tuple[str, ...]:
    """What `summarize` tells of records of this shape, (H, W, C) or (T, F), in its order; at most 10."""
    if kind is Kind.IMAGE:
        channels = [""] if shape[2] == 1 else [f"_{channel}" for channel in range(shape[2])]
        return (
            *(f"{what}{channel}" for what in ("brightness", "contrast") for channel in channels),
            "sharpness",
            "saturated",
        )
    if shape[1] > MOST_FEATURES:
        return "level", "levels_apart", "farthest_level", "deviation", "missing"
    names = features or [str(feature) for feature in range(shape[1])]
    return (*(f"{what}_{name}" for what in ("mean", "deviation") for name in names), "missing")


def summarize(kind: Kind, rows: NDArray[np.generic], scale: Scale | None = None) -> Floats:
    """Records to `[n, K]`, as `summary_names` calls them.

    Pictures `[n, H, W, C]` (uint8, or float32 in 0…255): mean and standard deviation of each channel, root mean square
    of the difference between neighbouring pixels, share of values at either end of the range. Of large ones only some
    pairs of lines are looked at. Windows `[n, T, F]` float32: mean and standard deviation of each feature and the share
    of missing values; with more than 4 features these are of all of them, in units of `scale`: how high they lie on
    average, how far from each other, the one that is farthest from where it was, and how much they vary. A mean of
    nothing is NaN.
    """
    if kind is Kind.IMAGE:
        return _of_pictures(rows)
    if rows.shape[2] <= MOST_FEATURES:
        return _of_windows(np.asarray(rows, np.float32))
    if scale is None:
        raise ValueError(f"windows of {rows.shape[2]} features need a scale to be seen together")
    return _of_wide_windows(np.asarray(rows, np.float32), scale)


def _of_pictures(rows: NDArray[np.generic]) -> Floats:
    count, height, width, channels = rows.shape
    step = math.ceil(height * width / MOST_PIXELS)
    if step > 1:
        first = np.arange(0, height - 1, 2 * step)
        rows = rows[:, np.stack([first, first + 1], 1).ravel()]
    pixels = rows.shape[1] * width
    x = rows.astype(np.float32)  # (n, h, W, C)
    flat = x.reshape(count, pixels, channels)
    summary = np.empty((count, 2 * channels + 2), np.float32)
    mean = np.einsum("npc->nc", flat) / np.float32(pixels)
    across = (x[:, :, 1:] - x[:, :, :-1]).reshape(count, -1)
    pairs = rows.shape[1] // 2
    down = (x[:, 1 : 2 * pairs : 2] - x[:, 0 : 2 * pairs : 2]).reshape(count, -1)
    ends = (x <= SATURATED[0]) | (x >= SATURATED[1])
    flat -= mean[:, np.newaxis]
    summary[:, :channels] = mean
    summary[:, channels : 2 * channels] = np.sqrt(np.einsum("npc,npc->nc", flat, flat) / np.float32(pixels))
    summary[:, -2] = np.sqrt(_mean_square(across) + _mean_square(down))
    summary[:, -1] = np.count_nonzero(ends.reshape(count, -1), axis=1) / (pixels * channels)
    return summary


def _mean_square(values: Floats) -> Floats:
    squares: Floats = np.einsum("np,np->n", values, values) / np.float32(values.shape[1])
    return squares


def _of_windows(rows: Floats) -> Floats:
    mean, deviation, missing = _moments(rows)
    return np.concatenate([mean, deviation, missing[:, np.newaxis]], axis=1)


def _of_wide_windows(rows: Floats, scale: Scale) -> Floats:
    mean, deviation, missing = _moments(rows)
    level = (mean - scale.center) / scale.spread  # (n, F)
    varies = deviation / scale.spread
    there = ~np.isnan(level)
    count = there.sum(1)
    nothing = count == 0
    count = np.maximum(count, 1)
    level, varies = np.where(there, level, 0.0), np.where(there, varies, 0.0)
    average = level.sum(1) / count
    apart = np.sqrt(np.where(there, np.square(level - average[:, np.newaxis]), 0.0).sum(1) / count)
    summary = np.stack([average, apart, np.abs(level).max(1), varies.sum(1) / count], 1)
    summary[nothing] = np.nan
    return np.concatenate([summary, missing[:, np.newaxis]], axis=1).astype(np.float32)


def _moments(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and deviation of each feature of windows `[n, F]`, and the share of missing values `[n]`."""
    steps = rows.shape[1]
    mean = np.einsum("ntf->nf", rows) / np.float32(steps)
    gaps = np.isnan(mean).any()
    if not gaps:
        centered = rows - mean[:, np.newaxis]
        deviation = np.sqrt(np.einsum("ntf,ntf->nf", centered, centered) / np.float32(steps))
        return mean, deviation, np.zeros(len(rows), np.float32)
    seen = ~np.isnan(rows)
    count = seen.sum(1)  # (n, F)
    with np.errstate(invalid="ignore"):  # a mean of nothing is NaN
        mean = (np.where(seen, rows, 0.0).sum(1) / count).astype(np.float32)
        square = np.where(seen, np.square(rows - mean[:, np.newaxis]), 0.0).sum(1) / count
    return mean, np.sqrt(square).astype(np.float32), (1.0 - seen.mean((1, 2))).astype(np.float32)
