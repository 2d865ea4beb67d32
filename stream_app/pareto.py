"""The upper tail of scores of which everything above a threshold is missing.

A threshold that learns only what it lets through sees a truncated sample: were it set at a quantile of that sample, it
would leave out a little more at each refresh and creep down for ever. So the generalized Pareto law of the excesses
over a high start (peaks over threshold: Pickands 1975; Siffer et al., "Anomaly Detection in Streams with Extreme Value
Theory", KDD 2017) is fitted by the likelihood of a sample truncated from above, and extrapolated past the truncation.

The excesses come as counts in equal cells. A table, made once, holds the log-probability of each cell under each
(scale, shape) of a grid; so a fit is one matrix product, can't fail to converge, and its answer, the mean over the
grid's posterior, moves smoothly with the data. Moments and probability-weighted moments (Hosking & Wallis 1987) have no
form for truncated samples.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CELLS = 24
CALIBRATED_SCALE = 1.0 / math.log(10.0)  # -log10 p of normal records is exponential with this mean

_SCALES = np.geomspace(0.03, 6.0, 128)  # of the distance from start to ceiling: steps of 4 %
_SHAPES = np.linspace(-0.4, 0.4, 17)
_SCALE_DEVIATION = 0.5  # of the logarithm: a prior around the calibrated scale, for when there is little to go by
_FLAT = 1e-9  # a shape this near 0 is the exponential law
_UNLIKELY = math.log(1e-4)  # of the greatest weight: below it a pair of the grid is left out


class _Grid(NamedTuple):
    scale: NDArray[np.float64]  # [G], of the ceiling's distance from the start
    log_scale: NDArray[np.float64]  # [G]
    shape: NDArray[np.float64]  # [G]
    square: NDArray[np.float64]  # [G], of the shape
    log_cell: NDArray[np.float64]  # [G, CELLS], log-probability of a cell for an excess below the ceiling
    above: NDArray[np.float64]  # [G], probability of an excess above the ceiling


def survival(
    excess: float | NDArray[np.float64], scale: NDArray[np.float64], shape: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P(X > excess) under the generalized Pareto law, in [0, 1], elementwise with NumPy's broadcasting."""
    flat = np.abs(shape) < _FLAT
    safe = np.where(flat, 1.0, shape)
    base = np.maximum(1.0 + safe * excess / scale, np.finfo(np.float64).tiny)  # 0 beyond the end of a bounded tail
    return np.exp(np.where(flat, -excess / scale, -np.log(base) / safe))


@cache
def _grid() -> _Grid:
    scale, shape = (axis.ravel() for axis in np.meshgrid(_SCALES, _SHAPES, indexing="ij"))
    edges = np.linspace(0.0, 1.0, CELLS + 1)
    above = survival(edges, scale[:, None], shape[:, None])  # (G, CELLS + 1)
    cell = -np.diff(above, axis=1) / (1.0 - above[:, -1:])  # (G, CELLS)
    log_cell = np.ascontiguousarray(np.log(np.maximum(cell, 1e-12)))
    return _Grid(scale, np.log(scale), shape, np.square(shape), log_cell, above[:, -1])


def quantile(
    start: float, ceiling: float, counts: NDArray[np.float64], share: float, rate: float, shape_deviation: float
) -> float:
    """The score that a share `rate` of all normal records exceeds (Siffer et al. 2017, eq. 1); finite, >= start.

    `counts` `[CELLS]` are the learned scores in equal cells from `start` to `ceiling`; what lies above the ceiling
    counts for nothing, be it missing or not. `share`, in [0, 1], is the share above `start` among the scores below the
    ceiling. The
    shape has a normal prior of deviation `shape_deviation` around 0, the shape of calibrated scores and of any multiple
    of them.
    """
    grid = _grid()
    width = ceiling - start
    scale_deviations = (grid.log_scale + math.log(width / CALIBRATED_SCALE)) / _SCALE_DEVIATION
    posterior = grid.log_cell @ counts  # (G,)
    posterior -= 0.5 * np.square(scale_deviations)
    posterior -= (0.5 / shape_deviation**2) * grid.square
    posterior -= posterior.max()
    likely = np.flatnonzero(posterior > _UNLIKELY)
    weight = np.exp(posterior[likely])
    scale, shape, above = grid.scale[likely] * width, grid.shape[likely], grid.above[likely]

    # `share` is P(start < s < ceiling) / P(s < ceiling). Solved for P(s > start), which the truncation hides:
    above_start = share / (1.0 - above * (1.0 - share))
    log_ratio = np.log(np.maximum(above_start / rate, 1.0))
    flat = np.abs(shape) < _FLAT
    safe = np.where(flat, 1.0, shape)
    excess = scale * np.where(flat, log_ratio, np.expm1(safe * log_ratio) / safe)
    return start + float(weight @ excess / weight.sum())
